"""What a screen is like: whether progress can be drawn on it, and how long its lines are."""

from __future__ import annotations

import shutil
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def is_live(console: Console) -> bool:
    """Tell whether a drawing can be updated in place: on a terminal, or in a notebook that has widgets."""
    if console.is_terminal:
        return not console.is_dumb_terminal
    return console.is_jupyter and find_spec("ipywidgets") is not None


def fold(text: str, stream: TextIO, indent: int = 0) -> str:
    """Break a line between words where a terminal would break it within one; what else reads it wants it whole."""
    if not stream.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, indent + 20)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
