"""Say a line to people: where a terminal would break it within a word, it is broken between words."""

from __future__ import annotations

import re
import sys

import click

from fink_dask.show.bar import fold

#: What stands before the words: blanks, and a label with more blanks behind it.
_BEFORE = re.compile(r" *(?:(?!\d)[\w'-]+(?: [\w'-]+)* {2,})?")


def say(text: str, err: bool = False) -> None:
    """Print lines; what goes on in the next one stands below the words, not below their label."""
    stream = sys.stderr if err else sys.stdout
    for line in text.split("\n"):
        found = _BEFORE.match(line)
        before = len(found[0]) if found else 0
        # A path is one word, and stays beside its label.
        click.echo(fold(line, stream, before) if " " in line[before:].strip() else line, err=err)
