"""A few alerts straight from Kafka: nothing is planned, written or committed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fink_dask.dataset.partitioning import Partitioning
from fink_dask.errors import BrokerError, SettingsError
from fink_dask.kafka.connection import Connection
from fink_dask.kafka.inspect import Inspector
from fink_dask.kafka.line import Line
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.reader import RangeReader
from fink_dask.ledger.ledger import Ledger
from fink_dask.planning.schemas import Target, inspect_topic
from fink_dask.ranges.decode import RangeDecoder
from fink_dask.settings import BATCH_BYTES, TransferSettings

#: The most alerts: whoever wants more wants a dataset.
MOST = 100

#: Offsets before the newest that are looked at as well where those hold too few: after a transaction comes a marker,
#: which is not a record.
_TAIL = 10


@dataclass(frozen=True)
class Peeked:
    """A record, and the alert in it."""

    #: partition, offset: where it is in the topic.
    partition: int
    offset: int
    #: Its Kafka timestamp, in milliseconds since 1970-01-01 UTC; negative where it has none.
    timestamp_ms: int
    #: A row, with ``kafka_partition`` and ``kafka_offset`` last.
    alert: pa.RecordBatch | None
    #: Why it can't be decoded, where there is no row.
    reason: str = ""


@dataclass(frozen=True)
class Peek:
    """Which alerts are wanted.

    Raises SettingsError if these do not go together.
    """

    #: How many, at most `MOST`.
    count: int = 3
    #: From this one; by default from all of them, the first one first.
    partition: int | None = None
    #: From here on; needs a partition.
    offset: int | None = None
    #: Those with the newest timestamps instead of the first ones.
    is_newest: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise SettingsError(f"-n {self.count} is not between 1 and {MOST}; fink-dask transfer --limit N takes more")
        if self.offset is not None and (self.partition is None or self.is_newest):
            raise SettingsError("--offset needs a --partition, and does not go with --newest")

    def ranges(self, topic: str, marks: dict[int, Watermarks]) -> list[OffsetRange]:
        """Choose what to read, of what the topic holds now.

        Raises BrokerError if it does not hold it.
        """
        if self.partition is not None and self.partition not in marks:
            raise BrokerError(f"there is no partition {self.partition}: the topic has {len(marks)}, from 0 on", topic)
        found = []
        for partition, each in sorted(marks.items()):
            if self.partition in {None, partition} and each.start < each.end:
                start = each.start
                if self.is_newest:
                    start = max(each.start, each.end - self.count)
                elif self.offset is not None:
                    start = self.offset
                if not each.start <= start < each.end:
                    held = f"it holds {each.start} to {each.end - 1}"
                    raise BrokerError(f"there is no such offset: {held}", topic, partition, start)
                found.append(OffsetRange(partition, start, each.end))
        if not found:
            raise BrokerError("there is nothing in it now, or nothing of that time", topic, self.partition)
        return found


def peek(settings: TransferSettings, wanted: Peek, connection: Connection) -> list[Peeked]:
    """Read a few alerts.

    `settings`: the topic, its survey, a schema file if there is one, and of which time alerts are wanted.
    Returns: in the order of partition and offset; the newest ones by their time.
    Raises FinkDaskError if there is no such topic, it holds nothing of this kind, or Kafka does not answer.
    """
    inspector = Inspector(connection, window=settings.window)
    target = inspect_topic(settings, inspector, Ledger(Path()), fresh=True)
    ranges = wanted.ranges(settings.topic, {} if target is None else dict(target.description.watermarks))
    assert target is not None
    found: list[Peeked] = []
    line = Line()
    for offset_range in ranges:
        if wanted.is_newest:
            # Only these are held, however many partitions there are.
            found += _newest(connection, line, target, offset_range, wanted.count)
            found = sorted(found, key=_age)[-wanted.count :]
        elif len(found) < wanted.count:
            found += _read(connection, line, target, offset_range, wanted.count - len(found))
    return found


def _age(record: Peeked) -> tuple[int, int, int]:
    return record.timestamp_ms, record.partition, record.offset


def _newest(connection: Connection, line: Line, target: Target, offset_range: OffsetRange, count: int) -> list[Peeked]:
    """Read the last records of a partition: those of the range, and of some offsets before where these are too few."""
    records = list(_read(connection, line, target, offset_range, len(offset_range)))
    low = target.description.watermarks[offset_range.partition].start
    if len(records) < count and low < offset_range.start:
        longer = OffsetRange(offset_range.partition, max(low, offset_range.start - _TAIL), offset_range.end)
        records = list(_read(connection, line, target, longer, len(longer)))
    return records[-count:]


def _read(
    connection: Connection, line: Line, target: Target, offset_range: OffsetRange, count: int
) -> Iterator[Peeked]:
    """Yield the first records of a range, at most `count`."""
    decoder = RangeDecoder(target.versions, target.identity, Partitioning(()), offset_range.partition)
    reader = RangeReader(connection, target.identity.topic, offset_range, lambda: False, line=line)
    left = count
    for batch in reader.batches(count, BATCH_BYTES, max_records=decoder.max_records):
        decoded = decoder.decode(batch)
        reasons = {int(batch.offsets[index]): reason for index, reason in decoded.bad}
        rows = {
            offset: part.take([row])  # a slice would hold the whole batch
            for part in (each.batch() for _, each in decoded.parts)
            for row, offset in enumerate(part["kafka_offset"].to_pylist())
        }
        for offset, timestamp in list(zip(batch.offsets.tolist(), batch.timestamps_ms.tolist(), strict=True))[:left]:
            yield Peeked(offset_range.partition, offset, timestamp, rows.get(offset), reasons.get(offset, ""))
        left -= len(batch)
        if left <= 0:
            return
