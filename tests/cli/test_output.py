"""What commands print is folded between words on a terminal, and whole where something else reads it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest

from fink_dask.cli.output import fold, print_json, say
from fink_dask.cli.several import print_table
from fink_dask.ledger.summary import Summary
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


NIGHTS = ("ftransfer_ztf_2026-02-24_123456", "ftransfer_ztf_2026-02-25_200101")


def test_the_table_of_a_full_night_is_aligned_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Summary(name, "complete", alerts=3_900_000 * n, files=30) for n, name in enumerate(NIGHTS)])
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80
    assert lines[-1].split() == ["2", "topics", "complete", "3,900,000", "0", "0", "60"]


def test_the_table_of_a_full_night_is_readable_on_the_terminal_of_a_phone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table([Summary(name, "complete", alerts=3_900_000 * n, files=30) for n, name in enumerate(NIGHTS)])
    lines = capsys.readouterr().out.splitlines()
    assert {*NIGHTS, "2 topics"} <= set(lines)
    assert all(len(line) <= 40 for line in lines), "a terminal would break numbers in two"
    assert "complete, alerts 3,900,000, quarantined 0, lost 0, files 30" in " ".join(" ".join(lines).split())


LINE = (
    "ok    topic        ftransfer_ztf_2026-02-24_123456789 holds 620 alerts in 4 partitions; Kafka may begin to remove"
)


class Screen(io.StringIO):
    """What says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_line_breaks_between_words_on_a_terminal_of_any_width_and_loses_none(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = fold(LINE, Screen(), 19).splitlines()
    assert " ".join(" ".join(lines).split()) == " ".join(LINE.split())
    assert all(line.startswith(" " * 19) for line in lines[1:])
    longest = max(map(len, LINE.split()))
    assert all(len(line) <= max(width, 19 + longest) for line in lines)


def test_a_program_gets_a_whole_line() -> None:
    assert fold(LINE, io.StringIO(), 19) == LINE
