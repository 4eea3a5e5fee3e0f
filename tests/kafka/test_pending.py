"""Where a batch ends depends on the records alone, and no batch is larger than its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from fink_dask.batches import RawBatch
from fink_dask.kafka.records import MAX_BATCH_RECORDS, RecordAccumulator


@dataclass(frozen=True)
class Record:
    """A message as librdkafka gives it."""

    where: int
    text: bytes | None
    name: bytes | None

    def offset(self) -> int:
        return self.where

    def value(self) -> bytes | None:
        return self.text

    def key(self) -> bytes | None:
        return self.name

    def timestamp(self) -> tuple[int, int]:
        return 1, self.where * 10

    @property
    def size(self) -> int:
        return len(self.text or b"") + len(self.name or b"")


@dataclass(frozen=True)
class Bounds:
    """What a `Pending` is made with."""

    batchsize: int
    batch_bytes: int
    min_bytes: int
    max_records: int

    def pending(self) -> RecordAccumulator:
        return RecordAccumulator(self.batchsize, self.batch_bytes, self.min_bytes, self.max_records)


SIZES = st.integers(0, 3) | st.integers(0, 60) | st.just(300)
RECORDS = st.lists(st.tuples(st.none() | SIZES, st.none() | st.integers(0, 9), st.integers(1, 3)), max_size=80)
BOUNDS = st.builds(Bounds, st.integers(1, 30), st.integers(1, 200), st.integers(0, 250), st.integers(1, 40))


def records_of(sizes: list[tuple[int | None, int | None, int]]) -> list[Record]:
    """Make records with holes between them, no two alike."""
    records, offset = [], 100
    for value, key, step in sizes:
        offset += step
        text = None if value is None else (b"%d" % offset * value)[:value]
        records.append(Record(offset, text, None if key is None else b"k" * key))
    return records


def batches_of(bounds: Bounds, records: list[Record], cuts: list[int]) -> list[RawBatch]:
    """Give records piece by piece, as they may arrive, and take every batch as soon as it is there."""
    pending, found = bounds.pending(), []
    places = [0, *sorted(cut % (len(records) + 1) for cut in cuts), len(records)]
    for start, end in pairwise(places):
        piece = records[start:end]
        assert pending.extend(piece) == sum(record.size for record in piece)
        found += pending.full()
    return [*found, *pending.rest()]


def contents(batches: list[RawBatch]) -> list[list[tuple[int, int, bytes | None, bytes | None]]]:
    return [
        list(
            zip(
                batch.offsets.tolist(),
                batch.timestamps_ms.tolist(),
                map(batch.value, range(len(batch))),
                batch.keys,
                strict=True,
            )
        )
        for batch in batches
    ]


def cut_one_by_one(bounds: Bounds, records: list[Record]) -> list[list[Record]]:
    """Say the rule once more, slowly: a batch takes records as long as each bound allows the next one."""
    batches: list[list[Record]] = []
    batch: list[Record] = []
    for record in records:
        size = sum(taken.size for taken in batch)
        enough = len(batch) >= bounds.batchsize and size >= bounds.min_bytes
        if batch and (enough or len(batch) >= bounds.max_records or size + record.size > bounds.batch_bytes):
            batches.append(batch)
            batch = []
        batch.append(record)
    return [*batches, batch] if batch else batches


@given(RECORDS, BOUNDS, st.lists(st.integers(0, 80), max_size=12))
@example([(1, None, 1)] * 9, Bounds(2, 100, 4, 40), [1, 2, 3, 4, 5, 6, 7, 8])
@example([(None, None, 1)] * 9, Bounds(2, 100, 4, 5), [1, 6])
@example([(300, None, 1), (1, None, 1), (300, None, 1)], Bounds(2, 50, 0, 40), [1, 2])
@example([(10, None, 1)] * 9, Bounds(3, 200, 30, 40), [3, 6])
def test_the_same_records_make_the_same_batches_however_they_arrive(
    sizes: list[tuple[int | None, int | None, int]], bounds: Bounds, cuts: list[int]
) -> None:
    records = records_of(sizes)
    expected = [[(r.where, r.where * 10, r.text, r.name) for r in batch] for batch in cut_one_by_one(bounds, records)]
    assert contents(batches_of(bounds, records, cuts)) == expected
    assert contents(batches_of(bounds, records, [])) == expected
    assert contents(batches_of(bounds, records, list(range(len(records))))) == expected


@given(RECORDS, BOUNDS, st.lists(st.integers(0, 80), max_size=12))
@example([(None, None, 1)] * 2, Bounds(1, 1, 0, 2), [])
@example([(4, None, 1), (0, None, 1), (0, None, 1)], Bounds(1, 50, 4, 40), [1])
def test_no_batch_exceeds_its_bounds_and_only_the_last_one_has_less_than_the_least(
    sizes: list[tuple[int | None, int | None, int]], bounds: Bounds, cuts: list[int]
) -> None:
    records = records_of(sizes)
    known = {record.where: record.size for record in records}
    batches = batches_of(bounds, records, cuts)
    for number, batch in enumerate(batches):
        size = sum(known[offset] for offset in batch.offsets.tolist())
        assert 1 <= len(batch) <= bounds.max_records
        assert size <= bounds.batch_bytes or len(batch) == 1
        # Beyond the batch size only for as long as there were not enough bytes.
        before_last = size - known[int(batch.offsets[-1])]
        assert len(batch) <= bounds.batchsize or before_last < bounds.min_bytes
        if number + 1 < len(batches) and len(batch) < bounds.max_records:
            following = known[int(batches[number + 1].offsets[0])]
            is_full = size + following > bounds.batch_bytes
            assert is_full or (len(batch) >= bounds.batchsize and size >= bounds.min_bytes)


def test_records_without_a_byte_are_never_more_than_a_batch_of_the_smallest_has() -> None:
    records = [Record(offset, None, None) for offset in range(MAX_BATCH_RECORDS + 1)]
    sizes = [len(batch) for batch in batches_of(Bounds(10, 2**20, 2**20, 10**9), records, [])]
    assert sizes == [MAX_BATCH_RECORDS, 1]
    few = batches_of(Bounds(10**9, 2**40, 0, 10**9), records, [5])
    assert [len(batch) for batch in few] == [MAX_BATCH_RECORDS, 1]
