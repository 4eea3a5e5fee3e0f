"""Settings of a transfer: frozen, checked when they are made, the same everywhere afterwards.

The command line resolves each of them once: flag, then environment, then file, then the default that stands here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fink_dask.errors import SettingsError

#: Raw bytes that a range is planned to hold.
RANGE_BYTES = 256 * 2**20
#: A range is not cut smaller than this to keep more consumers busy: each range writes a file a partition key.
SMALLEST_RANGE_BYTES = 64 * 2**20
#: Raw bytes of a batch, whatever the batch size says; also how much is decoded before a stop is noticed.
BATCH_BYTES = 8 * 2**20
#: Small batches are joined up to so many raw bytes: what is done once a batch would cost more than its records.
LEAST_BATCH_BYTES = 4 * 2**20
#: Decoded bytes that a range holds back to fill its row groups.
BUFFER_BYTES = 48 * 2**20
#: Bytes of records that librdkafka fetches ahead for a consumer.
QUEUE_BYTES = 16 * 2**20
#: Parquet's codecs, the default first: what takes the least time for the smallest files.
COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "brotli", "none")
COMPRESSION = COMPRESSIONS[0]


@dataclass(frozen=True)
class KafkaSettings:
    """How to reach Kafka.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port`` pairs with commas between them.
    request_timeout_s : float
        How long a broker may take to answer a question, in seconds.
    stall_timeout_s : float
        How long a range may wait for its next record before it fails, in seconds.
    queue_bytes : int
        Bytes of records that are fetched ahead.
    """

    bootstrap_servers: str
    request_timeout_s: float = 8.0
    stall_timeout_s: float = 60.0
    queue_bytes: int = QUEUE_BYTES

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise SettingsError("no Kafka servers: give --bootstrap-servers HOST:PORT, or register with fink-client")


@dataclass(frozen=True)
class TransferSettings:
    """What to transfer, from where, to where, and how.

    Parameters
    ----------
    topic : str
        The Kafka topic.
    outdir : pathlib.Path
        The dataset's directory; its ledger is the sibling ``OUTDIR.fink``.
    kafka : KafkaSettings
        How to reach Kafka.
    survey : str, optional
        ``ztf`` or ``lsst``; says how a time is to be read when the topic's name does not.
    partitionby : tuple of str
        ``time``, columns or dotted fields; empty for no partition columns.
    nconsumers : int
        How many ranges are consumed at once.
    batchsize : int
        Alerts that are decoded at once; small ones are joined to more.
    limit : int, optional
        The most alerts that the dataset may hold.
    schema_file : pathlib.Path, optional
        A writer schema to use instead of the one in Kafka.
    group_id : str, optional
        Consumer group whose offsets are committed at the end.
    range_bytes : int
        Raw bytes that a range is planned to hold.
    columns : tuple of str, optional
        The columns, or fields of structs with dots, that are decoded; all of them otherwise.
    compression : str
        One of `COMPRESSIONS`.
    memory_limit : int, optional
        Bytes that all processes together may take; otherwise half of what this process may use.

    Raises
    ------
    SettingsError
        If a value is out of its bounds.
    """

    topic: str
    outdir: Path
    kafka: KafkaSettings
    survey: str | None = None
    partitionby: tuple[str, ...] = ()
    nconsumers: int = 1
    batchsize: int = 1000
    limit: int | None = None
    schema_file: Path | None = None
    group_id: str | None = None
    range_bytes: int = RANGE_BYTES
    columns: tuple[str, ...] | None = None
    compression: str = COMPRESSION
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (("nconsumers", 1), ("batchsize", 1), ("limit", 1), ("range_bytes", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise SettingsError(f"--{name} is {value}, but must be at least {lowest}")
        if self.compression not in COMPRESSIONS:
            raise SettingsError(f"--compression is {self.compression}, but must be one of {', '.join(COMPRESSIONS)}")
        if self.group_id is not None and not self.group_id.strip():
            raise SettingsError("--group-id is empty")
        object.__setattr__(self, "outdir", Path(os.path.realpath(self.outdir)))
        if self.outdir.name in {"", ".", ".."}:
            raise SettingsError(f"--outdir {self.outdir} has no parent directory to keep its ledger in")
