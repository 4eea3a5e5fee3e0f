"""A repair keeps what is whole of a range, reads only what is missing, and accounts for every offset once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fink_dask.kafka.offsets import Interval, OffsetRange
from fink_dask.ledger.records import DataFile, Marker
from fink_dask.ledger.remainder import Remainder, rest_of, whole_range

RANGE = OffsetRange(2, 100, 120)
PLAN, FIRST, SECOND = "0123456789abcdef", "a" * 16, "b" * 16
FILE = DataFile("a.parquet", "a", rows=10, size=5, sha256="0")
OLD, NEW = (DataFile(f"quarantine/{name}.parquet", name, rows=3, size=5, sha256="0") for name in ("old", "new"))


def _committed(quarantine: DataFile | None = OLD) -> Marker:
    return Marker(
        plan_id=PLAN,
        range=RANGE,
        attempt=FIRST,
        rows=10,
        raw_bytes=500,
        files=(FILE,),
        quarantined=3 if quarantine else 0,
        quarantine=quarantine,
        lost=((100, 102),),
        holes=((102, 104), *(() if quarantine else ((104, 107),))),
        lost_at="then",
        revision=4,
        newest_ms=7,
        filtered=3,
    )


def test_what_is_read_again_goes_from_the_first_missing_alert_to_the_last() -> None:
    rest = replace(whole_range(RANGE), wanted=((103, 105), (110, 112), (117, 118)))
    assert rest.span(RANGE) == OffsetRange(2, 103, 118)
    offsets = np.arange(100, 120)
    assert offsets[rest.is_wanted(offsets)].tolist() == [103, 104, 110, 111, 117]


@pytest.mark.parametrize(
    ("is_rebuilt", "found"), [(True, ([(103, 105)], [(110, 111)])), (False, ([(103, 105), (110, 111)], []))]
)
def test_an_alert_that_was_there_and_does_not_come_again_is_lost_and_no_hole(
    is_rebuilt: bool, found: tuple[list[Interval], list[Interval]]
) -> None:
    rest = replace(whole_range(RANGE), wanted=((103, 105), (110, 112)), is_rebuilt=is_rebuilt)
    assert rest.absent([(100, 106)], [(108, 111)]) == found


@pytest.mark.parametrize(
    ("before", "after", "kept", "superseded"),
    [
        (OLD, None, OLD, ("bad.parquet",)),
        (OLD, NEW, NEW, ("bad.parquet", OLD.path)),
        (None, NEW, NEW, ("bad.parquet",)),
        (None, None, None, ("bad.parquet",)),
    ],
)
def test_the_next_marker_keeps_a_quarantine_or_replaces_it(
    before: DataFile | None, after: DataFile | None, kept: DataFile | None, superseded: tuple[str, ...]
) -> None:
    first = _committed(before)
    rest = replace(rest_of(first), superseded=("bad.parquet",))
    # What is in a quarantine now was a hole before.
    holes = ((102, 104),) if after else first.holes
    marker = replace(rest, holes=holes).marker(PLAN, RANGE, SECOND, quarantine=after)
    assert (marker.quarantine, marker.superseded) == (kept, superseded)
    assert marker.quarantined == (3 if kept else 0)


def test_what_a_marker_said_of_a_range_stays_said() -> None:
    rest = rest_of(_committed())
    assert rest == Remainder(
        revision=5, wanted=((100, 120),), files=(FILE,), quarantine=OLD, lost=((100, 102),), holes=((102, 104),),
        lost_at="then", is_rebuilt=False, raw_bytes=500, newest_ms=7, filtered=3,
    )  # fmt: skip
    more = DataFile("b.parquet", "b", rows=1, size=5, sha256="0")
    rest = replace(rest, filtered=1)
    marker = rest.marker(PLAN, RANGE, SECOND, [more], raw_bytes=9, lost=[(104, 105)], lost_at="now", newest_ms=9)
    assert (marker.rows, marker.files, marker.revision) == (11, (FILE, more), 5)
    assert (marker.raw_bytes, marker.newest_ms, marker.lost_at) == (500, 9, "now")
    assert (marker.lost, marker.holes) == (((100, 102), (104, 105)), ((102, 104),))
    again = replace(rest, raw_bytes=0, newest_ms=None).marker(PLAN, RANGE, SECOND, [more], lost=[(104, 105)])
    assert (again.raw_bytes, again.newest_ms, again.lost_at) == (0, None, "then")
