"""Compare a dataset with its topic as it is now: the id, the watermarks, and the values of a sample of the records.

Kafka sends whole batches, so a record that is read by itself brings its neighbours along, some hundred of them in an
archive of light alerts. The sample is therefore made of runs of records that lie together.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.avro.decoder import DecodedBatch
from fink_dask.avro.evolution import MAX_VERSIONS, fit_batch
from fink_dask.avro.framing import Framing
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.batches import RawBatch
from fink_dask.dataset.formats import KAFKA_FIELDS, format_of
from fink_dask.dataset.quarantine import read_quarantine
from fink_dask.dataset.schema_versions import known_versions, partitioning_of
from fink_dask.errors import LedgerError, SchemaError
from fink_dask.kafka.connection import Connection, open_glimpse
from fink_dask.kafka.inspect import Inspector, TopicDescription, is_other_topic
from fink_dask.kafka.line import Line
from fink_dask.kafka.offsets import OffsetRange, merge
from fink_dask.kafka.reader import RangeReader
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import check_is_in_kafka
from fink_dask.ledger.records import Identity, Marker, Plan
from fink_dask.planning.plan import known_topic_id, planned_ends, spans_to_plan
from fink_dask.settings import KafkaSettings
from fink_dask.units import Window, parse_moment
from fink_dask.where.condition import bind_condition

_BATCH_BYTES = 2**20

#: The sample consists of at least so many runs, or of single records where it is smaller; a large one of more.
_RUNS = 25

#: Rows of the dataset that are held at once.
_ROWS = 100

_Sameness = Literal["equal", "hole", "incomparable"]

#: Consecutive offsets of one partition, each interval with its marker.
_Stretch = list[tuple[Marker, OffsetRange]]

_Values = dict[str, Any]
#: The file and the values of a row; its bytes, where a format keeps those.
_Row = tuple[str, _Values] | bytes


@dataclass(frozen=True)
class Comparison:
    """What the comparison of a dataset with its topic showed."""

    #: Where they disagree, one line each.
    problems: tuple[str, ...]
    #: Records that came after the last plan was made.
    newer: int
    #: Planned offsets that Kafka no longer has.
    gone: int
    #: Records that were read from Kafka again, and are the same in the dataset or in its quarantine; or in neither,
    #: where the dataset's condition is not true of them.
    equal: int
    #: Records of the sample that Kafka no longer has, or that were decoded with another schema than the dataset's.
    incomparable: int
    #: Offsets of the sample that hold nothing, in Kafka and in the dataset.
    holes: int


def compare_with_kafka(
    ledger: Ledger,
    kafka: KafkaSettings,
    sample: int,
    seed: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
    on_wait: Callable[[float], None] = lambda _: None,
) -> Comparison:
    """Compare a dataset with its topic.

    `ledger`: the dataset; whatever `verify_dataset` checks is taken for granted.
    `sample`: how many committed offsets are read from Kafka again, in runs of consecutive ones that begin at random and
    are spread evenly over all partitions; each record is decoded with fastavro, which is not what the transfer decodes
    with.
    `advance`: is told how many of them were read.
    `on_wait`: is told several times a second, while Kafka sends nothing, for how many seconds it has not.
    Raises FinkDaskError if Kafka does not answer, or the ledger can't be read.
    """
    check_is_in_kafka(ledger, "verify")
    plans = ledger.plans()
    topic = plans[0].identity.topic
    line = Line()
    with open_glimpse(kafka) as connection:
        # What the last plan left out, as it is of a later time, has not come since.
        until = None if plans[-1].until is None else parse_moment("until", plans[-1].until)
        now = Inspector(connection, window=Window(until=until)).describe(topic)
        problems, newer = _compare_topic(plans, now)
        lows = {partition: marks.low for partition, marks in now.watermarks.items()}
        ranges = [offset_range for plan in plans for offset_range in plan.ranges]
        gone = sum(max(0, min(lows.get(each.partition, each.end), each.end) - each.start) for each in ranges)
        found: Counter[_Sameness] = Counter()
        if not problems and sample:
            chosen = _choose(ledger.markers(plans), lows, sample, random.Random(seed))  # noqa: S311
            decoders = {plan.plan_id: _Decoders(ledger, plan.identity) for plan in plans}
            for stretch in chosen:
                records = _Records(connection, topic, _span(stretch), line, on_wait)
                for marker, offsets in stretch:
                    checked = _Checked(ledger, decoders[marker.plan_id], marker)
                    for offset, row in checked.rows(offsets):
                        try:
                            found[checked.compare(offset, records.take(offset), row)] += 1
                        except _DifferenceError as difference:
                            problems.append(f"{topic}[{offsets.partition}] at offset {offset}: {difference}")
                        advance(1)
    return Comparison(tuple(problems), newer, gone, found["equal"], found["incomparable"], found["hole"])


def _compare_topic(plans: Sequence[Plan], now: TopicDescription) -> tuple[list[str], int]:
    """Compare id and watermarks with the plan; return the problems and how many records came since."""
    if is_other_topic(known_topic_id(plans), now.topic_id):
        return [f"{now.topic} was deleted and made again since the dataset was begun"], 0
    try:
        return [], sum(
            end - start for start, end in spans_to_plan(now.watermarks, planned_ends(plans), now.topic).values()
        )
    except LedgerError as error:
        return [str(error)], 0


def _choose(markers: Sequence[Marker], lows: dict[int, int], count: int, source: random.Random) -> Iterator[_Stretch]:
    """Choose committed offsets that Kafka may still have, in runs that are spread evenly, with their markers."""
    pieces = []
    for marker in sorted(markers, key=lambda marker: marker.range):
        partition, start, end = marker.range.partition, marker.range.start, marker.range.end
        if (start := max(start, lows.get(partition, 0))) < end:
            pieces.append((marker, OffsetRange(partition, start, end)))
    before = np.concatenate([[0], np.cumsum([len(each) for _, each in pieces], dtype=np.int64)]).tolist()
    total = before[-1]
    count = min(count, total)
    runs = max(min(count, _RUNS), math.isqrt(count))
    stretch: _Stretch = []
    for number in range(runs):
        # Each run begins somewhere in its own part of the offsets that are left over, so that no two overlap.
        over = source.randint((total - count) * number // runs, (total - count) * (number + 1) // runs)
        first, last = (over + count * (number + more) // runs for more in (0, 1))
        for index in range(bisect_right(before, first) - 1, bisect_left(before, last)):
            marker, piece = pieces[index]
            start = piece.start - before[index]
            cut = OffsetRange(piece.partition, max(piece.start, start + first), min(piece.end, start + last))
            if stretch and (stretch[-1][1].partition, stretch[-1][1].end) != (cut.partition, cut.start):
                yield stretch
                stretch = []
            stretch.append((marker, cut))
    if stretch:
        yield stretch


def _span(stretch: _Stretch) -> OffsetRange:
    (_, first), (_, last) = stretch[0], stretch[-1]
    return OffsetRange(first.partition, first.start, last.end)


class _Records:
    """The records of consecutive offsets, as Kafka has them now."""

    def __init__(
        self, connection: Connection, topic: str, span: OffsetRange, line: Line, on_wait: Callable[[float], None]
    ) -> None:
        reader = RangeReader(connection, topic, span, lambda: False, line=line, on_wait=lambda: on_wait(reader.quiet_s))
        self._batches = reader.batches(1, _BATCH_BYTES)
        self._next: RawBatch | None = next(self._batches, None)

    def take(self, offset: int) -> RawBatch | None:
        """Return the record at an offset, as a batch of one; None where there is none. To be called in their order."""
        found = self._next
        if found is None or found.offsets[0] != offset:
            return None
        self._next = next(self._batches, None)
        return found


class _DifferenceError(Exception):
    """A record differs from the one in Kafka."""


class _Decoders:
    """Decodes the records of a plan, each with the schema that it was written with, and tells which are wanted."""

    def __init__(self, ledger: Ledger, identity: Identity) -> None:
        self.framing = Framing(identity.framing)
        self._has_keys = identity.schema_source == "record key"
        self.first = ledger.schema(identity)
        self._versions = known_versions(ledger, identity)
        self._condition = None if identity.where is None else bind_condition(identity.where, self._versions.arrow)
        self._made: dict[AvroSchema, FastavroDecoder] = {}
        self._partitioning = partitioning_of(identity, self._versions)
        self._directories = ds.partitioning(self._partitioning.schema(self._versions.arrow), flavor="hive")

    def replaced(self, path: str) -> _Values:
        """Return what a reader takes from the directories of a file for fields that the file does not have."""
        said = ds.get_partition_keys(self._directories.parse(path))
        return {source.path: said.get(source.path) for source in self._partitioning.sources if source.is_replaced}

    def is_in_its_place(self, rows: pa.RecordBatch, path: str) -> bool:
        """Tell whether an alert's file is where its time, and other fields that the file has, belong."""
        levels = path.split("/")[:-1]
        split = self._partitioning.split(fit_batch(rows, self._versions.arrow))
        wanted = split.parts[0][0].split("/") if split.parts else levels
        names = [source.is_replaced for source in self._partitioning.sources for _ in source.columns]
        return all(name or one == other for name, one, other in zip(names, levels, wanted, strict=False))

    def is_wanted(self, decoded: DecodedBatch, key: bytes | None) -> bool:
        """Tell whether the condition is true of a record; it does not matter where the record's schema does not fit."""
        if self._condition is None or self._schema(key) not in self._versions.schemas:
            return True
        return bool(self._condition.is_true(fit_batch(decoded.rows, self._versions.arrow))[0])

    def decode(self, value: bytes | None, key: bytes | None) -> tuple[DecodedBatch | None, str]:
        """Decode a record with all its columns; or return the reason why it is not a row."""
        try:
            decoded = self._decode(value, key)
        except SchemaError as error:
            return None, str(error)
        return (None, decoded.bad[0].reason) if decoded.bad else (decoded, "")

    def _decode(self, value: bytes | None, key: bytes | None) -> DecodedBatch:
        schema = self._schema(key)
        if schema not in self._made:
            if len(self._made) >= MAX_VERSIONS:
                self._made.clear()
            self._made[schema] = FastavroDecoder(schema)
        return self._made[schema].decode([value])

    def _schema(self, key: bytes | None) -> AvroSchema:
        return parse_schema(key or b"") if self._has_keys else self.first


class _Checked:
    """One committed range, and where its records are."""

    def __init__(self, ledger: Ledger, decoders: _Decoders, marker: Marker) -> None:
        self._ledger = ledger
        self._decoders = decoders
        self._marker = marker
        # Of scattered alerts there may be as many intervals as alerts.
        self._elsewhere = merge((*marker.duplicates, *marker.handed_over))
        names = [file.path for file in marker.files]
        paths = [ledger.outdir / name for name in names]
        self._places = [
            (name, path, *format_of(path).read_places(path)) for name, path in zip(names, paths, strict=True)
        ]

    def rows(self, offsets: OffsetRange) -> Iterator[tuple[int, _Row | None]]:
        """Yield each offset, and what the dataset has of it."""
        for start in range(offsets.start, offsets.end, _ROWS):
            end = min(start + _ROWS, offsets.end)
            found: dict[int, _Row] = {}
            for name, path, partitions, there in self._places:
                (numbers,) = np.nonzero((there >= start) & (there < end) & (partitions == offsets.partition))
                replaced = self._decoders.replaced(name)
                rows: Sequence[_Values | bytes] = format_of(path).read_alerts(
                    path, numbers.tolist(), self._decoders.first
                )
                for offset, row in zip(there[numbers].tolist(), rows, strict=True):
                    found[offset] = (name, row | replaced) if isinstance(row, dict) else row
            for offset in range(start, end):
                yield offset, found.get(offset)

    def compare(self, offset: int, record: RawBatch | None, row: _Row | None) -> _Sameness:
        """Tell whether the dataset has the same of an offset as Kafka.

        Raises _DifferenceError if it has not.
        """
        if record is None:
            # Nothing on either side: a hole, or lost. Otherwise compaction or retention has removed it since.
            return "hole" if row is None and self._quarantined(offset) is None else "incomparable"
        plain, _ = self._decoders.framing.unwrap(record)
        value, key = plain.value(0), plain.keys[0]
        if row is None:
            return self._compare_absent(offset, record.value(0), value, key)
        if isinstance(row, bytes):
            if row != value and not self._marker.revision:
                raise _DifferenceError("its bytes differ from Kafka's")
            return "equal" if row == value else "incomparable"
        decoded, reason = self._decoders.decode(value, key)
        if decoded is None:
            if self._marker.revision:
                return "incomparable"  # a retry with another schema made it a row
            raise _DifferenceError(f"it is in the dataset, but can't be decoded: {reason}")
        if not self._decoders.is_wanted(decoded, key):
            raise _DifferenceError("it is in the dataset, but the condition is not true of it")
        path, values = row
        if not self._decoders.is_in_its_place(decoded.rows, path):
            raise _DifferenceError(f"it is in {path.rpartition('/')[0]}, which is not its place")
        expected = decoded.rows.to_pylist()[0]
        for name in values.keys() - {field.name for field in KAFKA_FIELDS}:
            if not _same(values[name], expected.get(name)):
                raise _DifferenceError(f"{name} has another value in Kafka")
        return "equal"

    def _compare_absent(self, offset: int, framed: bytes | None, value: bytes | None, key: bytes | None) -> _Sameness:
        """Tell whether it is right that a record in Kafka is not a row."""
        before = bisect_right(self._elsewhere, offset, key=itemgetter(0)) - 1
        if before >= 0 and offset < self._elsewhere[before][1]:
            return "incomparable"
        found = self._quarantined(offset)
        if found is not None:
            if found["value"][0].as_py() != framed:
                raise _DifferenceError("its quarantined bytes differ from Kafka's")
            return "equal"
        if not self._marker.filtered:
            raise _DifferenceError("Kafka has a record there, the dataset has none")
        decoded, reason = self._decoders.decode(value, key)
        if decoded is None:
            if self._marker.revision:
                return "incomparable"  # a retry with another schema decoded it
            raise _DifferenceError(f"it can't be decoded ({reason}), and is not in quarantine")
        if self._decoders.is_wanted(decoded, key):
            raise _DifferenceError("the condition is true of it, but the dataset does not have it")
        return "equal"

    def _quarantined(self, offset: int) -> pa.RecordBatch | None:
        if self._marker.quarantine is not None:
            for records in read_quarantine(self._ledger, self._marker.quarantine):
                found = records.filter(pc.equal(records["kafka_offset"], offset))
                if found.num_rows:
                    return found
        return None


def _same(first: Any, second: Any) -> bool:
    """Compare values of any depth; NaN equals NaN.

    The dataset may have only some fields of a struct, and others that the record's schema lacks, which are null.
    """
    if isinstance(first, float) and isinstance(second, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    if isinstance(first, dict) and isinstance(second, dict):
        return all(_same(first[key], second.get(key)) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(type(first) is type(second) and first == second)
