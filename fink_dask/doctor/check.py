"""The result of looking at one thing that a transfer needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What was found.

    Parameters
    ----------
    name : str
        What was looked at.
    state : {"ok", "warn", "fail"}
        Whether a transfer will do with it.
    found : str
        What there is, in a line.
    advice : str
        What to do or type where it is not ok.
    """

    name: str
    state: State
    found: str
    advice: str = ""
