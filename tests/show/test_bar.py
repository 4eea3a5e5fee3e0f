"""Whoever waits for a command that counts sees how far it is, how long the rest takes, and that nothing comes."""

from __future__ import annotations

import pytest

from fink_dask.show import bar
from fink_dask.show.bar import CountBar
from tests.harness.cli import remarks
from tests.harness.oracle import wait_for


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bar, "_LOOK_S", 3600.0)  # only what a test does has it look
    return now


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is_and_how_long_the_rest_takes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with CountBar("reading", 1000, "record") as shown:
        for clock[0] in range(1001, 1041):
            shown.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0] == "reading: 20 of 1,000 records, about 1 min 38 s left"
    assert lines[-1] == "reading: 320 of 1,000 records, about 1 min 8 s left"
    assert remarks("\n".join(lines)) == []  # so a test of what else a command says does not depend on how long it took


def test_that_nothing_comes_is_said_and_a_short_pause_is_not(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with CountBar("reading", 1000, "record") as shown:
        for clock[0] in range(1001, 1026):
            shown.wait(clock[0] - 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("0 of 1,000 records, nothing for 1" in line or "nothing for 2" in line for line in lines)


def test_whoever_waits_for_more_than_two_seconds_is_told_how_far_it_is_also_while_nothing_is_done(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar, "_LOOK_S", 0.01)
    said = ""

    def is_said() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "publishing: 0 of 1,000 alerts\n" in said

    with CountBar("publishing", 1000, "alert"):
        clock[0] += 3
        wait_for(is_said, "a line")
