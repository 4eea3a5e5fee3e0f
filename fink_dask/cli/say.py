"""Say a line to people: where a terminal would break it within a word, it is broken between words."""

from __future__ import annotations

import re
import sys

import click

from fink_dask.errors import shown
from fink_dask.show.bar import fold

#: What stands before the words: blanks, and a label with more blanks behind it.
_BEFORE = re.compile(r" *(?:(?!\d)[\w'-]+(?: [\w'-]+)* {2,})?")
#: What `click.style` writes; anything else that a terminal could obey is from outside, such as the name of a dataset.
_COLOUR = re.compile(r"(\x1b\[(?:[01]|3[0-7])m)")


def say(text: str, err: bool = False) -> None:
    """Print lines; what goes on in the next one stands below the words, not below their label."""
    stream = sys.stderr if err else sys.stdout
    for outside in text.split("\n"):
        line = "".join(part if _COLOUR.fullmatch(part) else shown(part) for part in _COLOUR.split(outside))
        found = _BEFORE.match(line)
        before = len(found[0]) if found else 0
        # A path is one word, and stays beside its label.
        click.echo(fold(line, stream, before) if " " in line[before:].strip() else line, err=err)
