"""A marker that is read in one look is what it is when it is read in full, and nothing else passes for one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import DataFile, Marker, opened, seal
from fink_dask.ledger.usual import usual_marker
from tests.harness.examples import examples
from tests.harness.ledgers import make_ledger
from tests.ledger.test_records import WRONG_MARKERS, json_values

RANGE = OffsetRange(3, 10, 20)
FIRST = DataFile("year=2026/finkclass=SN%20candidate/part-3.parquet", "00000.parquet", 6, 100, "0" * 64)
SECOND = DataFile("year=2026/finkclass=Unknown/part-3.parquet", "00001.parquet", 4, 100, "1" * 64, file_rows=9)
ONE = Marker("0123456789abcdef", RANGE, "fedcba9876543210", rows=6, raw_bytes=1000, files=(FIRST,), filtered=4)
USUAL = [
    ONE,
    replace(ONE, filtered=0, rows=10, files=(FIRST, SECOND), newest_ms=1771891200000, revision=2),
    replace(ONE, filtered=0, holes=((10, 12), (14, 16))),
    replace(ONE, filtered=1, lost=((10, 11),), lost_at="2026-02-24T03:00:00.000+00:00", duplicates=((18, 20),)),
    replace(ONE, filtered=0, rows=0, files=(), handed_over=((10, 20),)),
    replace(ONE, filtered=10, rows=0, files=()),
]


def in_one_look(raw: bytes, marker: Marker = ONE) -> Marker | str | None:
    """Read it in one look, or return why it is refused; None where it has to be read in full."""
    try:
        return usual_marker(raw, marker.range, marker.plan_id, marker.revision)
    except LedgerError as error:
        return str(error)


def in_full(raw: bytes) -> Marker | str:
    """Read it in full, or return why it is refused."""
    try:
        return Marker.from_json(opened("marker", raw, "marker.json"))
    except LedgerError as error:
        return str(error)


def sealed_again(raw: bytes) -> bytes:
    """Give a document that was changed the checksum of what it is now."""
    head, content = raw.split(b',"marker":', 1)
    digest = hashlib.sha256(content[:-1]).hexdigest().encode()
    return re.sub(rb'"sha256":"[^"]*"', b'"sha256":"' + digest + b'"', head) + b',"marker":' + content


@pytest.mark.parametrize("marker", USUAL)
def test_a_marker_as_nearly_all_are_costs_one_look(marker: Marker) -> None:
    raw = seal("marker", marker.to_json())
    assert in_one_look(raw, marker) == in_full(raw) == marker


@pytest.mark.parametrize("marker", USUAL)
def test_the_marker_of_another_range_plan_or_revision_is_not_taken_for_the_one_that_is_meant(marker: Marker) -> None:
    raw, plan_id, revision = seal("marker", marker.to_json()), marker.plan_id, marker.revision
    assert usual_marker(raw, OffsetRange(3, 10, 21), plan_id, revision) is None
    assert usual_marker(raw, RANGE, "0123456789abcdee", revision) is None
    assert usual_marker(raw, RANGE, plan_id, revision + 1) is None


@pytest.mark.parametrize("marker", USUAL)
def test_a_marker_of_which_a_byte_differs_or_is_missing_is_not_read(marker: Marker) -> None:
    raw = seal("marker", marker.to_json())
    for place in range(len(raw)):
        assert in_one_look(raw[:place], marker) is None
        for bit in (1, 4, 32, 128):
            changed = raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]
            # Of the format, as the checksum is of the content: both are formats that this version reads.
            assert in_one_look(changed, marker) in {None, in_full(changed)}


@pytest.mark.parametrize("size", [1000, 2**16 - 1, 2**16, 2**16 + 1])  # the beginning of a file is 64 KiB
def test_a_marker_with_something_behind_it_is_damaged_however_long_it_is(tmp_path: Path, size: int) -> None:
    ledger = make_ledger(tmp_path / "alerts")
    longer = size - len(seal("marker", ONE.to_json()))
    marker = replace(ONE, files=(replace(FIRST, path=FIRST.path + "x" * longer),))
    path = ledger.marker_path(RANGE)
    path.write_bytes(seal("marker", marker.to_json()))
    assert path.stat().st_size == size
    assert ledger.marker(RANGE, ONE.plan_id) == marker
    with path.open("ab") as file:
        file.write(b"0")
    with pytest.raises(LedgerError):
        ledger.marker(RANGE, ONE.plan_id)


@given(
    marker=st.sampled_from(USUAL),
    place=st.integers(0, 2000),
    removed=st.integers(0, 8),
    added=st.text(alphabet='0123456789-+.eE:,[]{}" \\/abfnu\0\n\x7f\xe9', max_size=6),
)
@example(marker=ONE, place=0, removed=0, added=" ")
@examples(400)
def test_whatever_somebody_seals_is_what_it_is_in_full(marker: Marker, place: int, removed: int, added: str) -> None:
    raw = seal("marker", marker.to_json())
    begin = raw.index(b',"marker":') + len(b',"marker":')
    place = begin + place % (len(raw) - begin)
    changed = sealed_again(raw[:place] + added.encode() + raw[place + removed :])
    assert in_one_look(changed, marker) in (None, in_full(changed))


@pytest.mark.parametrize(("name", "value"), WRONG_MARKERS, ids=lambda value: str(value)[:40])
def test_a_marker_that_holds_something_else_is_refused(name: str, value: object) -> None:
    raw = seal("marker", ONE.to_json() | {name: value})
    assert in_one_look(raw) in (None, in_full(raw))
    assert isinstance(in_full(raw), str)


@given(content=json_values)
def test_any_json_in_a_marker_is_what_it_is_in_full(content: Any) -> None:
    for name in ONE.to_json():
        raw = seal("marker", ONE.to_json() | {name: content})
        assert in_one_look(raw) in (None, in_full(raw))


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../b", "s3://bucket/key", "", ".", 'a"b', "a\\b", "a{b", "\xe9", "a\0b"]
)
def test_a_path_that_lies_outside_or_stands_for_something_else_is_no_usual_one(path: str) -> None:
    content = ONE.to_json()
    raw = seal("marker", content | {"files": [content["files"][0] | {"path": path}]})
    assert in_one_look(raw) in (None, in_full(raw))
