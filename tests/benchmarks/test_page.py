"""The page says what was measured, target by target, and nothing that was not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases import (
    BEFORE,
    FINK_CLIENT,
    FINK_DASK,
    FLINK,
    KAFKARROW,
    KINDS,
    RAW_DRAIN,
    SCALES,
    SPARK,
    Contestant,
    Turn,
    turns,
)
from benchmarks.page import page, write_page
from benchmarks.results import Result, Results, load
from benchmarks.targets import targets

SECONDS: dict[Contestant, float] = {
    FINK_DASK: 10.0,
    BEFORE: 20.0,
    FINK_CLIENT: 100.0,
    SPARK: 45.0,
    FLINK: 55.0,
    RAW_DRAIN: 3.0,
    KAFKARROW: 4.0,
}


def result(turn: Turn) -> Result:
    """Invent what a turn has measured."""
    return Result(
        run="r1",
        topic=turn.topic,
        contestant=turn.contestant,
        consumers=turn.consumers,
        batchsize=turn.batchsize,
        repetition=turn.repetition,
        ended="in time",
        seconds=SECONDS[turn.contestant] + turn.repetition,
        last_file_s=9.0,
        cpu_s=8.0 if turn.contestant == FINK_DASK else 16.0,
        peak_bytes=2 * 10**9,
        rows=SCALES["full"].alerts[turn.topic],
        right=True,
        checked="every id once",
        files=30,
        dataset_bytes=700 if turn.contestant == FINK_DASK else 1000,
    )


@pytest.fixture
def results() -> Results:
    run = {"id": "r1", "date": "2026-11-01", "scale": "full", "runs": 3, "cores": 2}
    topics = {
        key: {"kind": KINDS[key].value, "alerts": count, "value_bytes": 1000 * count}
        for key, count in SCALES["full"].alerts.items()
    }
    measured = [result(turn) for turn in turns(SCALES["full"], 3, 2)]
    return Results(run, {"processor": "made up"}, {"Kafka": "4"}, topics, measured)


def row(text: str, start: str) -> list[str]:
    """Find the row of a table that begins with some words."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_target_is_printed_with_its_figure(results: Results) -> None:
    text = page(results)
    for target in targets(results):
        assert row(text, target.name) == [target.name, target.bound, target.figure, target.reached]
    # The medians are 11 s of three runs, and 100.5 s and 45.5 s of two; of the drain the best, 3 s.
    assert row(text, "times as fast as fink-client, 400,000 light ZTF")[1:] == ["≥ 25x", "9.14x", "no"]
    assert row(text, "times as fast as fink-client, 1,000,000 light ZTF")[1:] == ["≥ 25x", "9.14x", "no"]
    assert row(text, "times as fast as Spark, 7,000 full LSST")[1:] == ["≥ 6x", "4.14x", "no"]
    assert row(text, "processor seconds over those of before, 3,900,000 light ZTF")[1:] == ["≤ 0.6", "0.50", "yes"]
    assert row(text, "share of the bare drain's speed, 31,000 full ZTF")[1:] == ["≥ 0.45", "0.27", "no"]


def test_what_failed_or_is_of_another_run_makes_no_figure(results: Results) -> None:
    results.measured = [
        replace(one, right=False) if one.contestant == SPARK else replace(one, run="r0") for one in results.measured
    ]
    assert {target.reached for target in targets(results)} == {"not measured"}
    assert "2 of 2 runs failed" in page(results)


def test_a_program_that_was_not_measured_has_no_column(results: Results) -> None:
    line = "| 100.5 (100.0 to 101.0) | 45.5 (45.0 to 46.0) |"
    assert f"{line} 55.5 (55.0 to 56.0) | 3.0 |" in page(results)
    results.measured = [one for one in results.measured if one.contestant != FLINK]
    assert f"{line} 3.0 |" in page(results)


def test_a_frozen_run_of_the_peer_is_named(results: Results) -> None:
    results.measured = [
        replace(one, ended="frozen", seconds=120.0, right=False)
        if (one.topic, one.contestant, one.consumers) == ("subset", FINK_CLIENT, 32)
        else one
        for one in results.measured
    ]
    assert "Frozen, and then stopped: fink-client with 32 consumers." in page(results)


def test_results_are_read_as_they_were_saved(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    assert load(tmp_path) == results
    write_page(load(tmp_path), tmp_path)
    assert not re.search(r"/(home|root|tmp|work)/", (tmp_path / "benchmarks.md").read_text())


def test_each_turn_comes_once_and_contestants_take_turns() -> None:
    found = list(turns(SCALES["full"], 3, 2))
    assert len({turn.key for turn in found}) == len(found)
    first = [(turn.contestant, turn.repetition) for turn in found if turn.topic == "light_s"]
    assert first[:3] == [(FINK_DASK, 0), (FINK_CLIENT, 0), (FINK_DASK, 1)]


def test_the_page_has_what_the_stages_took_of_each_topic_today_and_before(results: Results) -> None:
    found = {"alerts": 7000, "kind": "lsst-full", "runs": 3}
    rows = [found | {"program": who, "poll": 1.5, "decode": number} for number, who in enumerate((BEFORE, FINK_DASK))]
    text = page(results, stages={"commit": "abc", "rows": rows})
    assert row(text, "7,000 full LSST | before | 1.50")[-1] == "0.00"
    assert row(text, "7,000 full LSST | fink-dask | 1.50")[-1] == "1.00"


def test_what_was_not_measured_of_the_peer_is_said_beside_its_figures(results: Results) -> None:
    assert "Not measured" not in page(results)
    left = [one for one in results.measured if one.topic != "subset" or one.consumers < 16]
    assert "Not measured: fink-client with 16 consumers, 32 consumers." in page(replace(results, measured=left))
