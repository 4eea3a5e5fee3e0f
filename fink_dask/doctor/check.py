"""The result of one check of what a transfer needs."""

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
        What was checked.
    state : {"ok", "warn", "fail"}
        Whether a transfer can work with it.
    found : str
        What was found, in one line.
    advice : str
        What to do or type if it is not ok.
    """

    name: str
    state: State
    found: str
    advice: str = ""
