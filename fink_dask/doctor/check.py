"""The result of one check of what a transfer needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    figures : mapping of str to float, str or None
        What was measured or estimated, for programs.
    """

    name: str
    state: State
    found: str
    advice: str = ""
    figures: Mapping[str, float | str | None] = field(default_factory=dict)
