"""A topic as a lazy Dask DataFrame, straight from Kafka: only what is asked for is read, and nothing is stored."""

from __future__ import annotations

import atexit
import json
import logging
import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask.dataframe.dask_expr.io import FromMap
from dask.delayed import Delayed
from distributed import default_client

from fink_dask.api.settings import errors_in_python, kafka_of, taken
from fink_dask.avro.evolution import Versions
from fink_dask.avro.files import read_schema_file
from fink_dask.avro.schema import parse_schema
from fink_dask.avro.spelling import steps_to
from fink_dask.cluster.existing import workers_of
from fink_dask.dataset.formats import KAFKA_FIELDS
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.dataset.schema_versions import file_schema
from fink_dask.errors import BrokerError, CrowdedLineError, SchemaError, SettingsError, parameter
from fink_dask.kafka.connection import ConnectionPool
from fink_dask.kafka.inspect import UNKNOWN_ID, Inspector, open_inspector
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.reader import RangeReader
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity
from fink_dask.planning.plan import Sizing, next_plan
from fink_dask.planning.schemas import check_selection, inspect_topic
from fink_dask.ranges.decode import RangeDecoder
from fink_dask.settings import BATCH_BYTES, BATCHSIZE, FRAMINGS, MIN_BATCH_BYTES, KafkaSettings, TransferSettings
from fink_dask.show.display import doing
from fink_dask.units import parse_memory

log = logging.getLogger(__name__)

#: What to do with a record that can't be decoded; there is no quarantine here.
ON_BAD_RECORD = ("fail", "skip")
_KAFKA_NAMES = tuple(field.name for field in KAFKA_FIELDS)

#: The connections of this process: a worker's, or the user's own.
_connections = ConnectionPool()
atexit.register(_connections.close)


@dataclass(frozen=True)
class TopicSource:
    """What all partitions of a topic's frame share; small, as it is sent with each of them.

    Parameters
    ----------
    kafka : KafkaSettings
        How to reach Kafka.
    identity : Identity
        The topic.
    packed_schemas : bytes
        The writer schemas, compressed: each takes up to a hundred kilobytes.
    on_bad_record : {"fail", "skip"}
        What to do with a record that can't be decoded.
    """

    kafka: KafkaSettings
    identity: Identity
    packed_schemas: bytes
    on_bad_record: str

    @property
    def versions(self) -> Versions:
        """The writer schemas."""
        return _unpack(self.packed_schemas)


class TopicFrame(dd.DataFrame):  # type: ignore[misc]
    """A topic's Dask DataFrame; frames derived from it are ordinary ones."""

    def to_delayed(self, optimize_graph: bool = True) -> list[Delayed]:
        """Return the partitions as delayed Arrow tables, which keep even what pandas has no types for."""
        (reading,) = self.expr.find_operations(FromMap)
        (ranges,) = reading.operand("iterables")
        source = reading.operand("kwargs")["source"]
        return [dask.delayed(read_table, pure=True)(offset_range, source) for offset_range in ranges]


@errors_in_python()
def read_topic(
    topic: str,
    bootstrap_servers: str | None = None,
    *,
    survey: str | None = None,
    columns: str | Sequence[str] | None = None,
    where: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    schema: str | Path | None = None,
    framing: str = FRAMINGS[0],
    partition_bytes: int | str = "64MiB",
    on_bad_record: str = "fail",
    progress: bool = True,
    **connection: Any,
) -> TopicFrame:
    """Read a topic as a lazy Dask DataFrame, straight from Kafka; nothing is written.

    What the topic holds now is cut into ranges of offsets, each of which is a partition of the frame. A range is read
    whenever its partition is computed. If columns are selected from the frame (``df[["candid", "magpsf"]]``), only
    these are decoded, as Dask's optimiser passes the selection on.

    Parameters
    ----------
    topic : str
        The topic.
    bootstrap_servers : str, optional
        ``host:port`` pairs separated by commas; by default those of ``FINK_DASK_BOOTSTRAP_SERVERS``, or of the
        credentials file.
    survey : {"ztf", "lsst"}, optional
        Whose credentials file to use; by default taken from the topic's name.
    columns : str or sequence of str, optional
        Read only these columns, or dotted fields of structs such as ``candidate.jd``, and the two Kafka columns.
    where : str, optional
        Read only alerts for which this condition is true, such as ``magpsf < 18 and finkclass == "SN candidate"``. Of
        the others, only the fields in the condition are decoded; these need not be among `columns`.
    since, until : str or datetime.datetime, optional
        Read only alerts that came to Kafka from, and before, these times: ``"2026-02-24"``, ``"2026-02-24T03:00"`` (UTC
        unless it has a zone), or ``"6h"`` for that long ago.
    schema : str or pathlib.Path, optional
        A file with the Avro schema, instead of the one in Kafka.
    framing : {"auto", "none", "confluent", "single-object", "container"}
        What is around each record in its value; by default found out from a few records.
    partition_bytes : int or str
        The most raw bytes per partition, such as ``"64MiB"``. Each thread of a worker holds one partition, decoded.
    on_bad_record : {"fail", "skip"}
        What to do with a record that can't be decoded: fail the computation, or leave the record out with a warning in
        the worker's log.
    progress : bool
        Say that the topic is looked at, on stderr or below the cell of a notebook: over a slow line that takes a while.
    **connection
        ``reconnect_timeout``: how long Kafka may send nothing, or be unreachable, in seconds or as text such as
        ``"10m"``; 5 minutes by default. ``limit_rate``: the most that all consumers together may read from Kafka, in
        bytes a second or as text such as ``"5MB/s"``; it is divided among the workers that the Dask client has now.
        ``security_protocol``, ``sasl_mechanism``, ``username``, ``password``, ``password_file``, ``oauth_token_url``,
        ``oauth_scope``, ``ssl_ca_file``: see `fink_dask.kafka.credentials.find_kafka`.

    Returns
    -------
    TopicFrame
        A Dask DataFrame with Arrow types, nested columns included, and ``kafka_partition`` and ``kafka_offset``.
        Its `to_delayed` returns Arrow tables.

    Raises
    ------
    FinkDaskError
        If there is no such topic, Kafka does not answer, or a setting is wrong. The computation raises it too if Kafka
        has removed alerts in the meantime.

    Examples
    --------
    >>> import fink_dask
    >>> alerts = fink_dask.read_topic("ftransfer_ztf_2026-02-24_123456")  # doctest: +SKIP
    >>> alerts.groupby("finkclass").size().compute()  # doctest: +SKIP
    """
    if on_bad_record not in ON_BAD_RECORD:
        raise SettingsError(
            f"{parameter('on_bad_record')} is {str(on_bad_record)[:40]}, but must be one of {', '.join(ON_BAD_RECORD)}"
        )
    kafka = _of_each_process(kafka_of(topic, survey, bootstrap_servers, "read_topic", **connection))
    size = parse_memory(parameter("partition_bytes"), str(partition_bytes))
    given = {
        "survey": survey,
        "columns": columns,
        "where": where,
        "since": since,
        "until": until,
        "schema": schema,
        "framing": framing,
    }
    # There is no dataset, so nothing is looked up in its directory.
    settings = TransferSettings(topic, Path(), kafka, **taken(TransferSettings, given))
    shown = doing("looking at the topic") if progress else nullcontext()
    with shown, open_inspector(kafka, window=settings.window) as inspector:
        target = inspect_topic(settings, inspector, Ledger(Path()), fresh=True)
        if target is None:
            versions, spans = _of_empty(settings, inspector), {}
            check_selection(settings, versions)
            identity = Identity(topic, UNKNOWN_ID, (), None, versions.first.fingerprint, "file", settings.columns)
        else:
            versions, identity = target.versions, target.identity
            spans = target.description.spans
        # Partitions of the frame have a fixed size, however many of them are consumed at once.
        sizing = Sizing(size, len(spans) or 1, inspector.sample(topic, spans).sizes)
    plan = next_plan(1, identity, spans, sizing, None)
    texts = json.dumps([one.text for one in versions.schemas])
    source = TopicSource(kafka, identity, zlib.compress(texts.encode()), on_bad_record)
    # A frame has at least one partition.
    ranges: tuple[OffsetRange | None, ...] = plan.ranges if plan is not None else (None,)
    # Strings are Arrow's already; Dask would convert them to pandas' own type.
    with dask.config.set({"dataframe.convert-string": False}):
        frame = dd.from_map(_read_frame, ranges, source=source, meta=_to_pandas(_empty(source)), label="read-topic")
    return TopicFrame(frame.expr)


def read_table(offset_range: OffsetRange | None, source: TopicSource, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a range of a topic.

    Parameters
    ----------
    offset_range : OffsetRange or None
        Offsets of one partition of the topic; None if the topic is empty.
    source : TopicSource
        The topic.
    columns : sequence of str, optional
        The columns of the table; by default all of the source's.

    Raises
    ------
    BrokerError
        If Kafka refuses, does not answer, or no longer holds the range.
    SchemaError
        If a record can't be decoded, unless such records are left out.
    """
    names = _empty(source).column_names if columns is None else list(columns)
    if offset_range is None:
        return _empty(source, tuple(names))
    began = time.monotonic()
    while True:
        try:
            return pa.concat_tables([_empty(source, tuple(names)), *_read_range(offset_range, source, names)])
        except CrowdedLineError:  # the readers of this process have become fewer, and ask for less
            if time.monotonic() - began > source.kafka.reconnect_timeout_s:
                raise


def _read_range(offset_range: OffsetRange, source: TopicSource, names: Sequence[str]) -> list[pa.Table]:
    """Read a range once, a table a batch."""
    tables: list[pa.Table] = []
    decoder = _decoder(source, names, offset_range.partition)
    with _connections.connect(source.kafka) as connection:
        topic, topic_id = source.identity.topic, source.identity.topic_id
        reader = RangeReader(connection, topic, offset_range, lambda: False, topic_id, line=_connections.line)
        for batch in reader.batches(BATCHSIZE, BATCH_BYTES, MIN_BATCH_BYTES, source.versions.max_records):
            decoded = decoder.decode(batch)
            for index, reason in decoded.bad:
                _report(source, offset_range, int(batch.offsets[index]), reason)
            tables += [pa.Table.from_batches([part.batch()]).select(names) for _, part in decoded.parts]
        if reader.lost:
            start, end = reader.lost[0]
            words = f"Kafka has removed offsets {start} to {end - 1} since the topic was looked at"
            raise BrokerError(words, source.identity.topic, offset_range.partition, start)
    return tables


def _read_frame(
    offset_range: OffsetRange | None, source: TopicSource, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    return _to_pandas(read_table(offset_range, source, columns))


def _of_each_process(kafka: KafkaSettings) -> KafkaSettings:
    """Divide the rate that is set for all processes among those that may read: the client's workers, or this one."""
    if kafka.limit_rate is None:
        return kafka
    try:
        client = default_client()
    except ValueError:  # there is none
        workers = 1
    else:
        workers = 1 if client.asynchronous else len(workers_of(client))  # such a one can't be asked here
    return replace(kafka, limit_rate=max(1, kafka.limit_rate // max(1, workers)))


def _of_empty(settings: TransferSettings, inspector: Inspector) -> Versions:
    """Find the schema of an empty topic."""
    if settings.schema_file is not None:
        return Versions((read_schema_file(settings.schema_file),))
    found = inspector.schema(settings.topic, inspector.describe(settings.topic))
    return Versions((parse_schema(found.text),))


def _report(source: TopicSource, offset_range: OffsetRange, offset: int, reason: str) -> None:
    if source.on_bad_record == "fail":
        words = f"{reason}; {parameter('on_bad_record', 'skip')} leaves such records out"
        raise SchemaError(words, source.identity.topic, offset_range.partition, offset)
    log.warning("%s[%s] at offset %s is left out: %s", source.identity.topic, offset_range.partition, offset, reason)


def _decoder(source: TopicSource, names: Sequence[str], partition: int) -> RangeDecoder:
    """Make a decoder for what the columns need; for at least one column, as it must yield rows."""
    wanted = [name for name in names if name not in _KAFKA_NAMES]
    identity = source.identity
    if identity.columns is None:
        kept = wanted or [source.versions.arrow.names[0]]
    else:
        names = source.versions.arrow.names
        kept = [each for each in identity.columns if steps_to(names, each)[0] in wanted] or [identity.columns[0]]
    is_all = identity.columns is None and set(kept) == set(source.versions.arrow.names)
    return RangeDecoder(
        source.versions, replace(identity, columns=None if is_all else tuple(sorted(kept))), Partitioning(()), partition
    )


@lru_cache(maxsize=8)
def _unpack(packed: bytes) -> Versions:
    return Versions(tuple(parse_schema(text) for text in json.loads(zlib.decompress(packed))))


@lru_cache(maxsize=64)
def _empty(source: TopicSource, names: tuple[str, ...] | None = None) -> pa.Table:
    """Return a table without rows."""
    table = file_schema(source.versions, source.identity, Partitioning(())).empty_table()
    return table if names is None else table.select(names)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """Hand a table to pandas without a copy."""
    return table.to_pandas(types_mapper=pd.ArrowDtype)
