"""What a command says: a line to people, or JSON to scripts.

A line that a terminal would break within a word is broken between words. JSON is one object on stdout on every way out
of a command, with its state, its error and its name.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import click

from fink_dask.errors import StorageError, shown, variable

#: How an option that asks for JSON is written.
_ASKED = {"--json", "-json"}
#: What a variable of a flag that is not set may hold.
UNSET = {"", "0", "false", "f", "no", "n", "off"}

#: How people write that a file is stdout.
_STDOUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}

#: What stands before the words: blanks, and a label with more blanks behind it.
_BEFORE = re.compile(r" *(?:(?!\d)[\w'-]+(?: [\w'-]+)* {2,})?")
#: What `click.style` writes; anything else that a terminal could obey is from outside, such as the name of a dataset.
_COLOUR = re.compile(r"(\x1b\[(?:[01]|3[0-7])m)")

#: The blank between a number and its unit, where no line is broken, and what stands for it meanwhile.
_AMOUNT = re.compile(r"(?<=\d) (?=(?:ms|s|min|h|d|B|[kMGT]B|[kMG]?bit/s)\b)")
_NO_BREAK = "\N{NO-BREAK SPACE}"


class _Run:
    """The command that runs in this process."""

    command: str | None = None
    is_json = False
    has_printed = False


def begin(command: str | None, typed: Sequence[str]) -> None:
    """Note which command was typed, and whether for JSON; what a file says of that, `ask_for_json` is told."""
    _Run.command = command
    asked = os.environ.get(variable("json"), "").lower() not in UNSET
    _Run.is_json = asked or not _ASKED.isdisjoint(typed)
    _Run.has_printed = False


def ask_for_json(_: click.Context, __: click.Parameter, value: bool) -> bool:
    """Take what was found out about an option."""
    _Run.is_json = value
    return value


def expect_json() -> None:
    """Note that the command prints JSON whatever its options for that are."""
    _Run.is_json = True


def print_json(content: Mapping[str, Any], failures: Sequence[str] = ()) -> None:
    """Print the one object of a command; `failures` say what went wrong beside what it has."""
    _Run.has_printed = True
    how = {"state": "failed", "error": "; ".join(failures)} if failures else {"state": "complete", "error": None}
    click.echo(json.dumps(jsonable({"command": _Run.command, **how, **content})))


def jsonable(value: Any) -> Any:
    """Return a value as JSON has it, which knows no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {name: jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_failure(error: str, state: str = "failed") -> None:
    """Print the object of a command that was asked for one, and has ended before there was any."""
    if _Run.is_json and not _Run.has_printed:
        with suppress(OSError):  # stderr has the words, where stdout is on a disk that is full
            print_json({"state": state, "error": error})


def say(text: str, err: bool = False) -> None:
    """Print lines; what goes on in the next one stands below the words, not below their label."""
    stream = sys.stderr if err else sys.stdout
    for outside in text.split("\n"):
        line = "".join(part if _COLOUR.fullmatch(part) else shown(part) for part in _COLOUR.split(outside))
        found = _BEFORE.match(line)
        before = len(found[0]) if found else 0
        # A path is one word, and stays beside its label.
        click.echo(fold(line, stream, before) if " " in line[before:].strip() else line, err=err)


def fold(text: str, stream: TextIO, indent: int = 0) -> str:
    """Break a line between words where a terminal would break it within one; what else reads it wants it whole."""
    if not stream.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, indent + 20)
    whole = _AMOUNT.sub(_NO_BREAK, text)
    folded = textwrap.fill(whole, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return folded.replace(_NO_BREAK, " ")


def is_stdout(file: Path | None) -> bool:
    """Tell whether a file is where the command prints: then nothing else may be there."""
    return str(file) in _STDOUT


def is_streamed(file: Path) -> bool:
    """Tell whether what is written to a file replaces nothing: it is stdout, a pipe or a device."""
    from fink_dask.store.local import is_stream

    return is_stdout(file) or is_stream(file)


def deliver(file: Path, content: bytes) -> None:
    """Write a file, which appears whole, or write to a pipe or a device."""
    from fink_dask.ledger.ledger import storage_in_words
    from fink_dask.store.local import LOCAL

    if is_stdout(file):
        click.echo(content, nl=False)
        return
    with storage_in_words(file):
        if is_streamed(file):
            with file.open("ab") as stream:
                stream.write(content)
        else:
            LOCAL.replace(file.resolve(), content)


def save(file: Path, content: bytes) -> None:
    """Write a file, and the directory that it is in."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}") from error
