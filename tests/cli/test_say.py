"""What commands print is folded between words on a terminal, and whole where something else reads it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.harness.terminal import Terminal

LINES = (
    "  this run   60,000 alerts in     12.3 s, start included (4,877 alerts/s), and more words than there is room for",
    "  /home/ada/a-path-that-is-longer-than-the-terminal-is-wide/and-is-one-word-that-nobody-wants-to-have-broken",
    "short",
)


@pytest.mark.parametrize("width", [40, 80])
def test_a_line_is_never_broken_within_a_word_and_goes_on_below_its_words(width: int, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {}, width)
    program = f"from fink_dask.cli.say import say\nsay({chr(10).join(LINES)!r})"
    assert terminal.type("say", [sys.executable, "-c", program]) == 0
    _, *shown = terminal.text.rstrip().splitlines()
    assert not any(line.endswith("12.3") for line in shown), "an amount without its unit"
    assert " ".join(" ".join(shown).split()) == " ".join(" ".join(LINES).split())
    folded = shown[:-2]
    assert all(len(line) <= width for line in folded)
    assert len(folded) > 1
    assert all(line.startswith(" " * 13) for line in folded[1:])
