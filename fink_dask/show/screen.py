"""Whether progress can be drawn where it is shown."""

from __future__ import annotations

from importlib.util import find_spec

from rich.console import Console


def is_live(console: Console) -> bool:
    """Tell whether a drawing can be updated in place: on a terminal, or in a notebook that has widgets."""
    if console.is_terminal:
        return not console.is_dumb_terminal
    return console.is_jupyter and find_spec("ipywidgets") is not None
