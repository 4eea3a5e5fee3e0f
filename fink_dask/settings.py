"""Settings of a transfer: frozen, checked when they are made, the same everywhere afterwards.

The command line resolves each of them once: flag, then environment, then file, then the default that stands here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fink_dask.errors import SettingsError, parameter

#: Raw bytes that a range is planned to hold.
RANGE_BYTES = 256 * 2**20
#: A range is not cut smaller than this to keep more consumers busy: each range writes a file a partition key.
SMALLEST_RANGE_BYTES = 64 * 2**20
#: Alerts that are decoded at once.
BATCHSIZE = 1000
#: The most raw bytes of a batch, whatever the batch size says; also how much is decoded before a stop is noticed.
BATCH_BYTES = 8 * 2**20
#: Small batches are joined until they have this many raw bytes: the work per batch would cost more than its records.
MIN_BATCH_BYTES = 4 * 2**20
#: Decoded bytes that a range holds back to fill its row groups.
BUFFER_BYTES = 48 * 2**20
#: Bytes of records that librdkafka fetches ahead for a consumer.
QUEUE_BYTES = 16 * 2**20
#: Parquet's codecs, the default first: what takes the least time for the smallest files.
COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "brotli", "none")
COMPRESSION = COMPRESSIONS[0]
#: Formats of the files, the default first, and those of them that keep the records as they came, without columns.
OUTFORMATS = ("parquet", "avro")
RECORD_OUTFORMATS = ("avro",)
#: What becomes of a record that can't be decoded, and of a range that Kafka no longer has all of; the defaults first.
ON_BAD_RECORD = ("quarantine", "fail")
ON_LOSS = ("continue", "fail")
#: How long Kafka may send nothing, or be unreachable, in seconds.
RECONNECT_TIMEOUT_S = 300.0
#: Kafka's names of them, the default first: https://kafka.apache.org/documentation/#security
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
#: What the URL of an object store begins with, as `Path` takes it for a directory.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

#: Unless that port is taken; Dask's own default.
DASHBOARD_ADDRESS = "127.0.0.1:8787"


def _check_known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{option} is {value[:40]}, but must be one of {', '.join(known)}")


def check_sendable(what: str, text: str | None) -> None:
    """Refuse a text that librdkafka would cut short at a NUL, or confluent_kafka end the process over.

    Raises
    ------
    SettingsError
        That says what it is, and not what is in it: it may be a password.
    """
    try:
        is_text = text is None or b"\0" not in text.encode()
    except UnicodeEncodeError:  # from an environment or an argument that is not UTF-8
        is_text = False
    if not is_text:
        raise SettingsError(f"{what} holds a NUL, or is not UTF-8, and Kafka's clients can't send it")


def has_sasl(protocol: str) -> bool:
    """Whether the protocol makes the broker ask who we are."""
    return protocol.startswith("SASL_")


def has_tls(protocol: str) -> bool:
    """Whether the protocol encrypts the connection."""
    return protocol.endswith("SSL")


@dataclass(frozen=True)
class Security:
    """Who we are to Kafka, and how the connection is protected.

    Parameters
    ----------
    protocol : str
        One of `SECURITY_PROTOCOLS`.
    mechanism : str
        One of `SASL_MECHANISMS`, for the two protocols with SASL.
    username, password : str, optional
        For the same. The password is left out of the repr of this object, which Dask and others log.
    ca_pem : str, optional
        Certificates of the authorities that are trusted, as PEM; otherwise those of the system. The text and not the
        name of a file, which workers on other machines may not have.

    Raises
    ------
    SettingsError
        If there is no such protocol or mechanism, SASL lacks the user's name or password, or one can't be sent.
    """

    protocol: str = SECURITY_PROTOCOLS[0]
    mechanism: str = SASL_MECHANISMS[0]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_pem: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_known(parameter("security_protocol"), self.protocol, SECURITY_PROTOCOLS)
        _check_known(parameter("sasl_mechanism"), self.mechanism, SASL_MECHANISMS)
        if has_sasl(self.protocol) and not self.username:
            raise SettingsError(f"{self.protocol} needs a user name: give {parameter('username', 'NAME')}")
        if has_sasl(self.protocol) and not self.password:
            raise SettingsError(
                f"{self.protocol} needs a password: give {parameter('password')} or "
                f"{parameter('password_file', 'FILE')}, or have it in "
                "the credentials file"
            )
        check_sendable("the user name", self.username)
        check_sendable("the password", self.password)


PLAINTEXT = Security()


@dataclass(frozen=True)
class KafkaSettings:
    """How to reach Kafka.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port`` pairs with commas between them.
    request_timeout_s : float
        How long a broker may take to answer a question, in seconds.
    reconnect_timeout_s : float
        How long Kafka may send nothing to a range, or be unreachable, before that fails, in seconds.
    limit_rate : int, optional
        Bytes a second that all consumers together may take from the line; as much as it carries otherwise.
    queue_bytes : int
        Bytes of records that are fetched ahead.
    security : Security
        Who we are to Kafka, and how the connection is protected.
    """

    bootstrap_servers: str
    request_timeout_s: float = 30.0
    reconnect_timeout_s: float = RECONNECT_TIMEOUT_S
    limit_rate: int | None = None
    queue_bytes: int = QUEUE_BYTES
    security: Security = PLAINTEXT

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise SettingsError(
                f"no Kafka servers: give {parameter('bootstrap_servers', 'HOST:PORT')}, or type fink-dask register"
            )
        check_sendable(parameter("bootstrap_servers"), self.bootstrap_servers)
        if not 0 < self.reconnect_timeout_s < float("inf"):
            raise SettingsError(
                f"{parameter('reconnect_timeout')} is {self.reconnect_timeout_s:g} s, but must be positive and finite"
            )
        if self.limit_rate is not None and self.limit_rate < 1:
            raise SettingsError(f"{parameter('limit_rate')} is {self.limit_rate}, but must be at least 1 byte a second")


@dataclass(frozen=True)
class FollowSettings:
    """How to follow a topic that is still being filled, and when to end: whichever of these comes first.

    Parameters
    ----------
    roll_interval_s : float
        The longest that an alert waits before its range is planned, in seconds, while a consumer is free.
    idle_timeout_s : float, optional
        End when no partition has grown for this long, in seconds.
    until_count : int, optional
        End when this many records are in the dataset, in its quarantine, or declared lost.
    until : datetime.datetime, optional
        End at this time, which has a time zone.

    Raises
    ------
    SettingsError
        If a value is out of its bounds.
    """

    roll_interval_s: float = 30.0
    idle_timeout_s: float | None = None
    until_count: int | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name, seconds in (("roll_interval", self.roll_interval_s), ("idle_timeout", self.idle_timeout_s)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise SettingsError(f"{parameter(name)} is {seconds:g} s, but must be positive and finite")
        if self.until_count is not None and self.until_count < 1:
            raise SettingsError(f"{parameter('until_count')} is {self.until_count}, but must be at least 1")
        if self.until is not None and self.until.tzinfo is None:
            raise SettingsError(f"{parameter('until')} has no time zone: add Z for UTC, or an offset such as +02:00")


@dataclass(frozen=True)
class TransferSettings:
    """What to transfer, from where, to where, and how.

    Parameters
    ----------
    topic : str
        The Kafka topic.
    outdir : pathlib.Path
        The dataset's directory, or its place on an object store; its ledger is the sibling ``OUTDIR.fink``.
    kafka : KafkaSettings
        How to reach Kafka.
    survey : str, optional
        ``ztf`` or ``lsst``; says how to read times where the topic's name does not.
    partitionby : tuple of str
        ``time``, columns or dotted fields; empty for no partition columns.
    nconsumers : int
        How many ranges are consumed at once.
    batchsize : int
        Alerts that are decoded at once; small batches are joined.
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
    where : str, optional
        The condition that is true of the alerts to take; all of them otherwise.
    outformat : str
        One of `OUTFORMATS`.
    compression : str
        One of `COMPRESSIONS`; of Parquet files.
    memory_limit : int, optional
        Bytes that all processes together may take; otherwise half of what this process may use.
    on_bad_record : str
        One of `ON_BAD_RECORD`.
    on_loss : str
        One of `ON_LOSS`.
    follow : FollowSettings, optional
        Wait for what is still to come; otherwise take only what is there when the transfer begins.
    force : bool
        Begin even where the disk seems too small.

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
    batchsize: int = BATCHSIZE
    limit: int | None = None
    schema_file: Path | None = None
    group_id: str | None = None
    range_bytes: int = RANGE_BYTES
    columns: tuple[str, ...] | None = None
    where: str | None = None
    outformat: str = OUTFORMATS[0]
    compression: str = COMPRESSION
    memory_limit: int | None = None
    on_bad_record: str = ON_BAD_RECORD[0]
    on_loss: str = ON_LOSS[0]
    follow: FollowSettings | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.follow is not None and self.limit is not None:
            raise SettingsError(
                f"{parameter('limit')} does not go with {parameter('follow')}: {parameter('until_count', 'N')} "
                "ends it when N alerts are there"
            )
        if self.where is not None and self.limit is not None:
            # A plan is made of offsets, and only decoding tells how many of them the condition is true of.
            raise SettingsError(
                f"{parameter('limit')} does not go with {parameter('where')}: how many offsets N such alerts take "
                "is unknown"
            )
        for name, number in (
            ("nconsumers", self.nconsumers),
            ("batchsize", self.batchsize),
            ("limit", self.limit),
            ("range_bytes", self.range_bytes),
        ):
            if number is not None and number < 1:
                raise SettingsError(f"{parameter(name)} is {number}, but must be at least 1")
        _check_known(parameter("outformat"), self.outformat, OUTFORMATS)
        _check_known(parameter("compression"), self.compression, COMPRESSIONS)
        _check_known(parameter("on_bad_record"), self.on_bad_record, ON_BAD_RECORD)
        _check_known(parameter("on_loss"), self.on_loss, ON_LOSS)
        if self.outformat in RECORD_OUTFORMATS and self.columns is not None:
            raise SettingsError(
                f"{parameter('outformat', self.outformat)} keeps whole records: leave out {parameter('columns')}"
            )
        if self.group_id is not None and not self.group_id.strip():
            raise SettingsError(f"{parameter('group_id')} is empty")
        check_sendable(parameter("group_id"), self.group_id)
        if _SCHEME.fullmatch(self.outdir.parts[0] if self.outdir.parts else ""):
            raise SettingsError(
                f"{parameter('outdir')} {self.outdir} has lost a slash: give s3://BUCKET/NAME as text, not a Path"
            )
        if "://" not in str(self.outdir):  # on an object store there are no links
            object.__setattr__(self, "outdir", Path(os.path.realpath(self.outdir)))
        if self.outdir.name in {"", ".", ".."}:
            raise SettingsError(f"{parameter('outdir')} {self.outdir} has no parent directory to keep its ledger in")


def parse_address(option: str, text: str) -> str:
    """Read a ``HOST:PORT`` to listen on; without a host, on this machine alone.

    Raises
    ------
    SettingsError
        If it is not one.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        raise SettingsError(f"{option} is {text[:80]!r}, but should be HOST:PORT")
    return f"{host or '127.0.0.1'}:{port}"
