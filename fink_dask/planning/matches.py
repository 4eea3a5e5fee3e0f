"""Say of a few alerts how many a condition is true of, and what its columns hold, so that a slip in it is seen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fink_dask.dataset.partitioning import Partitioning, column_of
from fink_dask.errors import InterruptedTransferError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.reader import RangeReader
from fink_dask.planning.forecast import open_sample
from fink_dask.planning.schemas import Target
from fink_dask.settings import OUTFORMATS, TransferSettings
from fink_dask.units import pluralize, printable
from fink_dask.where.condition import Condition, bind_condition

#: The most alerts that are looked at, in how many ranges, and the most bytes of them.
_ALERTS, _RANGES = 500, 10
_BYTES = 2 * 2**20
#: Seconds that they may take on the line, where its rate is known.
_SECONDS = 3.0
#: Seconds after which a Kafka that sends nothing is asked no more: nothing depends on it.
_PATIENCE_S = 15.0
#: Values of a column that are named, and characters of each.
_NAMED, _CHARS = 5, 40


@dataclass(frozen=True)
class Matches:
    """How many of a few alerts a condition is true of."""

    #: Alerts that were looked at.
    looked_at: int
    #: Those that it is true of.
    matching: int
    #: What each of its columns holds in those that were looked at, in words; empty where some match.
    values: dict[str, str]

    @property
    def words(self) -> str:
        """All of it in a few words."""
        if self.matching:
            return f"{self.matching:,} of {pluralize(self.looked_at, 'alert')} looked at"
        there = "".join(f"; {name} there is {words}" for name, words in self.values.items())
        return f"none of {self.looked_at:,} looked at{there}"


def look_at_some(
    settings: TransferSettings, target: Target, ranges: Iterable[OffsetRange], bytes_per_s: float | None
) -> Matches | None:
    """Read a few alerts from the middle of the longest ranges, and ask the condition of them.

    `bytes_per_s`: what is known of the line: a slow one is not asked for much.
    Returns None if there is no alert to look at.
    """
    assert target.identity.where is not None
    condition = bind_condition(target.identity.where, target.versions.arrow)
    rows = _read_some(settings, target, condition, sorted(ranges, key=len, reverse=True)[:_RANGES], bytes_per_s)
    if not rows:
        return None
    matching = sum(int(condition.is_true(batch).sum()) for batch in rows)
    values = {} if matching else {path: _in_words(rows, path) for path in condition.columns}
    return Matches(sum(batch.num_rows for batch in rows), matching, values)


def _read_some(
    settings: TransferSettings,
    target: Target,
    condition: Condition,
    ranges: Sequence[OffsetRange],
    bytes_per_s: float | None,
) -> list[pa.RecordBatch]:
    """Read the columns of the condition of some alerts of each range."""
    from fink_dask.ranges.decode import RangeDecoder  # its compiler takes a third of a second, and is rarely needed

    identity = replace(
        target.identity, where=None, columns=condition.columns, partitionby=(), outformat=OUTFORMATS[0]
    )  # fmt: skip
    most = _BYTES if bytes_per_s is None else int(min(_BYTES, max(2**16, _SECONDS * bytes_per_s)))
    rows: list[pa.RecordBatch] = []
    ends = time.monotonic() + _PATIENCE_S
    connection = open_sample(settings.kafka)
    try:
        with suppress(InterruptedTransferError):  # of what has come until then it is told
            for offset_range in ranges:
                middle = (
                    (offset_range.start + offset_range.end) // 2 if len(offset_range) > _ALERTS else offset_range.start
                )
                some = OffsetRange(
                    offset_range.partition, middle, min(middle + _ALERTS // len(ranges), offset_range.end)
                )
                decoder = RangeDecoder(target.versions, identity, Partitioning(()), some.partition)
                reader = RangeReader(connection, settings.topic, some, lambda: time.monotonic() > ends)
                for batch in reader.batches(_ALERTS, most // len(ranges), max_records=decoder.max_records):
                    rows += [part.batch() for _, part in decoder.decode(batch).parts]
                    break  # a batch has as many bytes as it may take
    finally:
        connection.close()
    return rows


def _in_words(rows: list[pa.RecordBatch], path: str) -> str:
    """Say what a column holds: its most frequent values, or from where to where its numbers go."""
    column = pa.chunked_array([column_of(batch, path) for batch in rows])
    known = column.drop_null()
    if not len(known):
        return "null"
    if pt.is_nested(column.type):
        return "never null" if len(known) == len(column) else "sometimes null"
    counts = sorted(known.value_counts().to_pylist(), key=lambda each: (-each["counts"], str(each["values"])))
    if len(counts) > _NAMED and not (pt.is_string(column.type) or pt.is_boolean(column.type)):
        ends = pc.min_max(known).as_py()
        least, most = (np.float32(end) if pt.is_float32(column.type) else end for end in (ends["min"], ends["max"]))
        return f"{least} to {most}"
    named = [printable(str(each["values"]), _CHARS) for each in counts[:_NAMED]]
    if len(known) < len(column) and len(counts) < _NAMED:
        named.append("null")
    return ", ".join(named) + (", …" if len(counts) > _NAMED else "")
