"""What commands print is folded between words on a terminal, and whole where something else reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from fink_dask.cli.output import print_json, say
from tests.harness.terminal import Terminal

LINES = (
    "  this run   60,000 alerts in     12.3 s, start included (4,877 alerts/s), and more words than there is room for",
    "  /home/ada/a-path-that-is-longer-than-the-terminal-is-wide/and-is-one-word-that-nobody-wants-to-have-broken",
    "short",
)


@pytest.mark.parametrize("width", [40, 80])
def test_a_line_is_never_broken_within_a_word_and_goes_on_below_its_words(width: int, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {}, width)
    program = f"from fink_dask.cli.output import say\nsay({chr(10).join(LINES)!r})"
    assert terminal.type("say", [sys.executable, "-c", program]) == 0
    _, *shown = terminal.text.rstrip().splitlines()
    assert not any(line.endswith("12.3") for line in shown), "an amount without its unit"
    assert " ".join(" ".join(shown).split()) == " ".join(" ".join(LINES).split())
    folded = shown[:-2]
    assert all(len(line) <= width for line in folded)
    assert len(folded) > 1
    assert all(line.startswith(" " * 13) for line in folded[1:])


def test_no_name_from_outside_moves_the_cursor_or_hides_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{click.style('partial', fg='yellow', bold=True)}  nights/a\x1b]0;b\x07\x1b[8mc\x1b[2J\u202ed\re")
    say("\x1b[31mfink-dask: error:\x1b[0m \x9b2J", err=True)
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert text.replace("\n", "").isprintable()
    assert "partial  nights/a" in printed.out


def test_json_has_no_number_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"values": [1.5, float("nan"), {"inside": (float("inf"), -float("inf"), 2)}]})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["values"] == [1.5, None, {"inside": [None, None, 2]}]
