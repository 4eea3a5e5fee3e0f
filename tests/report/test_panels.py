"""The panels of a report show all nights but those that are far by mistake, and say what is left out and why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bokeh.models import DatetimeTickFormatter

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.report import charts, panels
from fink_dask.report.facts import find_facts
from fink_dask.report.page import render
from fink_dask.report.panels import far_words, night_words, nights_shown
from fink_dask.store.local import LocalStore
from tests.harness.ledgers import make_ledger, make_plan, transfer


@pytest.mark.parametrize("error", [pa.ArrowInvalid(""), OSError()], ids=["arrow", "os"])
def test_an_error_without_text_leaves_panels_out_and_the_report_is_made(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    plan = make_plan([OffsetRange(0, 0, 100)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    monkeypatch.setattr(panels, "open_known", fail)
    found = panels.find_panels(find_facts(ledger))
    assert found.left_out["positions"].endswith(f": {type(error).__name__}")


def test_what_to_do_about_panels_that_are_left_out_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"two directories, {'with names as long as those of topics, ' * 12}are of two surveys: give one of them"

    def fail(*_: object) -> None:
        raise LedgerError(words)

    plan = make_plan([OffsetRange(0, 0, 100)])
    facts = find_facts(make_ledger(tmp_path / "alerts", plan))
    monkeypatch.setattr(panels, "open_known", fail)
    assert words in render(facts, panels.find_panels(facts), "alerts", "1", datetime.now(UTC))


def test_the_files_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan([OffsetRange(0, 0, 100)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    looks: list[str] = []
    finder = LocalStore.size_finder

    def counting(store: LocalStore, *roots: Path) -> Callable[[Path, str, int], bool]:
        there = finder(store, *roots)

        def look(root: Path, path: str, size: int) -> bool:
            looks.append(path)
            return there(root, path, size)

        return look

    monkeypatch.setattr(LocalStore, "size_finder", counting)
    found = panels.find_panels(find_facts(ledger))
    assert found.sampled == 80
    assert len(looks) == len(set(looks)), "on a network file system that takes twice as long"


NIGHT = date(2026, 2, 24).toordinal() - date(1970, 1, 1).toordinal()
YEAR = 365


def days(*years: int) -> list[int]:
    return [date(year, 1, 1).toordinal() - date(1970, 1, 1).toordinal() for year in years]


@pytest.mark.parametrize("wrong", [days(2100), days(1900), days(1900, 2100), days(1, 9999)])
def test_a_few_wrong_times_make_no_needles_of_the_nights_and_are_said(wrong: list[int]) -> None:
    counts: dict[int | None, float] = {}
    counts |= dict.fromkeys(range(NIGHT, NIGHT + 3), 100.0)
    counts |= dict.fromkeys(wrong, 1.0)
    assert nights_shown(counts) == [NIGHT, NIGHT + 1, NIGHT + 2]
    told = far_words(counts)
    assert told.count("1 alert on ") == len(wrong)
    assert night_words(counts) == f"2026-02-24 to 2026-02-26; {told}"
    assert night_words({**counts, None: 1}).count("1 alert ") == len(wrong) + 1


def test_one_night_is_one_and_many_wrong_ones_are_said_together() -> None:
    counts: dict[int | None, float] = {
        NIGHT: 1000.0,
        NIGHT + 1: 1.0,
        **dict.fromkeys(days(1900, 1950, 2050, 2100), 2.0),
    }
    assert nights_shown(counts) == [NIGHT, NIGHT + 1]
    assert far_words(counts) == "8 alerts on 4 other nights between 1900-01-01 and 2100-01-01"


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {None: 7.0},
        {NIGHT: 1.0},
        {NIGHT: 1000.0, NIGHT + 200: 1.0},
        {NIGHT: 1.0, NIGHT + 50 * YEAR: 1.0},
        {NIGHT: 90.0, NIGHT - 6 * YEAR: 10.0},
        dict.fromkeys(range(NIGHT - 2400, NIGHT, 30), 5.0),
        dict.fromkeys(days(*range(1990, 2026)), 1.0),
    ],
    ids=["none", "no time", "one", "half a year", "one each", "a tenth", "years of nights", "a night a year"],
)
def test_nights_that_are_far_by_right_are_all_shown(counts: dict[int | None, float]) -> None:
    assert nights_shown(counts) == sorted(day for day in counts if day is not None)
    assert far_words(counts) == ""


@pytest.mark.parametrize("days", [[NIGHT], [NIGHT, NIGHT + 400]], ids=["one", "two a year apart"])
def test_a_few_nights_are_named_by_their_days(days: list[int]) -> None:
    made = charts.nights(np.array(days), np.ones(len(days)), 200)
    (axis,) = made.xaxis
    assert [int(tick / 86_400_000) for tick in axis.ticker.ticks] == days
    form = axis.formatter
    assert isinstance(form, DatetimeTickFormatter)
    assert {form.hours, form.days, form.months, form.years} == {"%d %b %Y"}


def test_no_axis_of_counts_has_halves() -> None:
    nights = charts.nights(np.array([NIGHT]), np.ones(1), 200)
    sizes = charts.sizes([1000])
    brightness = charts.magnitudes({"g": np.ones(2)}, np.array([17.0, 18.0, 19.0]))
    assert {made.yaxis[0].ticker.min_interval for made in (nights, sizes, brightness)} == {1}
