"""A line is whole for a program that reads it, and breaks between words on a terminal."""

from __future__ import annotations

import io

import pytest

from fink_dask.cli.output import fold

LINE = (
    "ok    topic        ftransfer_ztf_2026-02-24_123456789 holds 620 alerts in 4 partitions; Kafka may begin to remove"
)


class Terminal(io.StringIO):
    """What says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_line_breaks_between_words_on_a_terminal_of_any_width_and_loses_none(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = fold(LINE, Terminal(), 19).splitlines()
    assert " ".join(" ".join(lines).split()) == " ".join(LINE.split())
    assert all(line.startswith(" " * 19) for line in lines[1:])
    longest = max(map(len, LINE.split()))
    assert all(len(line) <= max(width, 19 + longest) for line in lines)


def test_a_program_gets_a_whole_line() -> None:
    assert fold(LINE, io.StringIO(), 19) == LINE
