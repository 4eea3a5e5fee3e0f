"""The links that are measured fit into their time, and the table says what was measured and no more."""

from __future__ import annotations

from typing import Any

from benchmarks.link_rows import PARTS, ROWS, Row
from benchmarks.link_table import links_section
from benchmarks.links import CONTESTANTS

#: What comes besides the line: programs start, fink-client waits at the end of partitions, topics are filled.
BESIDE_S = 70


def measured(row: Row, contestant: str, seconds: float, **changed: Any) -> dict[str, Any]:
    """Invent a measurement."""
    one = {"row": row.name, "contestant": contestant, "seconds": seconds, "ended": "well", "right": True}
    return {**one, "checked": "", "moved_bytes": 105, "connections": 9, "stored_bytes": 100, **changed}


def cells(*found: dict[str, Any]) -> list[str]:
    run = {"id": "r1", "date": "2026-11-01", "commit": "c1", "cores": 2}
    section = links_section({"run": run, "measured": list(found)})
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {ROWS[0].name}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_there_are_24_links_beside_those_that_were_reported_and_all_are_different() -> None:
    assert len([row for row in ROWS if not row.name.startswith("reported")]) == 24
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({(row.line, row.consumers, row.topic) for row in ROWS}) == len(ROWS)
    assert {row.mbit for row in ROWS} >= {2, 1000}
    assert {row.round_trip_ms for row in ROWS} >= {1, 1000}
    assert {row.loss for row in ROWS} == {0, 0.01}
    assert {row.consumers for row in ROWS} >= {1, 32}


def test_the_matrix_takes_90_minutes_at_most_and_a_part_a_share_of_them() -> None:
    carried = len(CONTESTANTS) - 1
    seconds = dict.fromkeys(range(1, PARTS + 1), 0.0)
    for row in ROWS:
        seconds[row.part] += carried * row.megabytes * 8 / row.mbit + BESIDE_S
    assert sum(seconds.values()) < 5400
    assert max(seconds.values()) < 1700


def test_a_transfer_is_held_against_the_longer_of_the_drain_and_its_own_time_without_a_link() -> None:
    row = ROWS[0]
    line = [measured(row, "drain", 20.0), measured(row, "loopback", 10.0)]
    found = cells(*line, measured(row, "fink-dask", 32.0), measured(row, "fink-client", 64.0, moved_bytes=130))
    assert found[3:] == ["20.0", "10.0", "32.0", "1.60", "yes", "1.05", "9", "64.0", "1.30"]
    assert cells(*line, measured(row, "fink-dask", 32.1))[7] == "no"


def test_times_are_compared_where_both_delivered_everything() -> None:
    found = [
        *(measured(row, "fink-dask", 20.0) for row in ROWS[:3]),
        measured(ROWS[0], "fink-client", 50.0),
        measured(ROWS[1], "fink-client", 25.0),
        measured(ROWS[2], "fink-client", 1.0, right=False),
    ]
    run = {"id": "r1", "date": "2026-11-01", "commit": "c1", "cores": 2, "is_shared": True}
    section = links_section({"run": run, "measured": found})
    assert "everything in 2 of 3 rows; there, fink-dask took 0.60 of its time in the median, 0.80 at most" in section
    assert "Other programs ran" in section


def test_a_transfer_that_failed_or_lacks_alerts_is_no_success() -> None:
    row = ROWS[0]
    line = [measured(row, "drain", 20.0), measured(row, "loopback", 10.0)]
    assert cells(*line, measured(row, "fink-dask", 5.0, ended="status 1"))[5:8] == ["status 1 after 5", "", "no"]
    assert cells(*line, measured(row, "fink-dask", 5.0, right=False))[5:8] == ["incomplete after 5", "", "no"]
    assert cells(measured(row, "fink-dask", 5.0))[6:8] == ["", ""]


def test_nothing_is_said_where_nothing_was_measured() -> None:
    assert links_section({}) == ""
