"""The files that one attempt is writing: rows by partition key, and the records that are not rows."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import pyarrow as pa

from fink_dask.batches import RawBatch
from fink_dask.dataset.formats import Origin
from fink_dask.dataset.quarantine import QUARANTINE_SCHEMA, quarantine_rows, read_quarantine
from fink_dask.dataset.writer import StagedWriter
from fink_dask.errors import SchemaError, parameter
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.ledger import QUARANTINE_DIRECTORY
from fink_dask.ledger.records import DataFile, Identity
from fink_dask.ledger.remainder import Remainder
from fink_dask.progress.profile import Stopwatch
from fink_dask.ranges.decode import RangeDecoder, SortedBatch
from fink_dask.ranges.memory import FULL_SHARE, MemoryShare
from fink_dask.settings import COMPRESSION, ON_BAD_RECORD


class StagedRange:
    """Decodes batches into the staged files of an attempt; a context manager that closes them."""

    def __init__(
        self,
        attempt: Attempt,
        identity: Identity,
        decoder: RangeDecoder,
        rest: Remainder,
        watch: Stopwatch | None = None,
        memory: MemoryShare = FULL_SHARE,
        compression: str = COMPRESSION,
        on_bad_record: str = ON_BAD_RECORD[0],
    ) -> None:
        origin = Origin(identity.topic, identity.topic_id, attempt.range, attempt.plan_id, attempt.revision)
        self._topic = identity.topic
        self._ledger = attempt.ledger
        self._range = attempt.range
        self._decoder = decoder
        # What there is of the range; rows that it holds are not written again.
        self._rest = rest
        # Is told when a stage is over.
        self._watch = watch or Stopwatch()
        # What becomes of a record that can't be decoded.
        self._on_bad_record = on_bad_record
        self._data = StagedWriter(
            attempt,
            decoder.file_schema,
            origin,
            buffer_bytes=memory.buffer_bytes,
            compression=compression,
            outformat=identity.outformat,
            records=decoder.records,
        )
        self._quarantine = StagedWriter(
            attempt, QUARANTINE_SCHEMA, origin, prefix="quarantine-", buffer_bytes=memory.batch_bytes
        )
        #: rows, raw_bytes, quarantined, filtered: what has been staged so far, and how many alerts were filtered.
        self.rows = self.raw_bytes = self.quarantined = self.filtered = 0
        #: Newest timestamp of what was added, in milliseconds since 1970-01-01 UTC.
        self.newest_ms: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._data.__exit__(kind, error, traceback)
        self._quarantine.__exit__(kind, error, traceback)

    def add(self, batch: RawBatch) -> None:
        """Decode a batch, and write its rows and its bad records.

        Raises SchemaError if a record can't be decoded, and the settings call that a failure.
        Raises SettingsError if the range has too many partition keys.
        """
        decoded = self._decoder.decode(batch)
        self._watch.lap("decode")
        if self._rest.revision:
            decoded = _select(decoded, batch, self._rest)
        self.write_rows(decoded)
        if decoded.bad:
            if self._on_bad_record == "fail":
                self._refuse(batch, decoded)
            self.write_quarantine(quarantine_rows(batch, decoded.bad, self._range.partition))
        self.raw_bytes += batch.raw_bytes
        newest_ms = int(batch.timestamps_ms.max(initial=-1))
        if newest_ms >= 0:
            self.newest_ms = max(newest_ms, self.newest_ms or 0)

    def write_rows(self, decoded: SortedBatch) -> None:
        """Write the rows of a decoded batch, and count what was filtered."""
        self.filtered += len(decoded.filtered)
        for directory, part in decoded.parts:
            self._data.write(directory, part)
            self.rows += part.num_rows

    def write_quarantine(self, records: pa.RecordBatch) -> None:
        """Write bad records, which have `QUARANTINE_SCHEMA`."""
        self._quarantine.write(QUARANTINE_DIRECTORY, records)
        self.quarantined += records.num_rows

    def complete(self) -> None:
        """Write what was held back, and the footers."""
        if self.quarantined and self._rest.quarantine is not None:
            # A range has one quarantine file: its records move into the new one.
            for records in read_quarantine(self._ledger, self._rest.quarantine):
                self.write_quarantine(records)
        self._data.complete()
        self._quarantine.complete()

    def stage(self) -> tuple[tuple[DataFile, ...], DataFile | None]:
        """Sync the complete files to disk; return those of the dataset and that of the quarantine."""
        files, quarantine = self._data.stage(), self._quarantine.stage()
        return files, quarantine[0] if quarantine else None

    def _refuse(self, batch: RawBatch, decoded: SortedBatch) -> None:
        index, reason = decoded.bad[0]
        raise SchemaError(
            f"the record can't be decoded ({reason}); {parameter('on_bad_record', 'quarantine')} would put it aside",
            self._topic,
            self._range.partition,
            int(batch.offsets[index]),
        )


def _select(decoded: SortedBatch, batch: RawBatch, rest: Remainder) -> SortedBatch:
    """Keep of a batch that was read again what is wanted."""
    wanted = rest.is_wanted(batch.offsets)
    parts = []
    for directory, part in decoded.parts:
        kept = part.filter(rest.is_wanted(part.offsets))
        if kept.num_rows:
            parts.append((directory, kept))
    bad = [(index, reason) for index, reason in decoded.bad if wanted[index]]
    return SortedBatch(parts, bad, decoded.filtered[wanted[decoded.filtered]])
