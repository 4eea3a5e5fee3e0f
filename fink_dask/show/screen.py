"""Whether there is something to draw on."""

from __future__ import annotations

from importlib.util import find_spec

from rich.console import Console


def is_live(console: Console) -> bool:
    """Tell whether what was drawn can be drawn again: on a terminal, and in a notebook that has widgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
