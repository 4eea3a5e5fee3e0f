"""Settings: frozen, checked when they are made, the same everywhere afterwards; and how users give them.

A field that a user can give carries an `Option`. The options of the commands, their help, their variables in the
environment, their keys in a TOML file and the pages about them are made from it, and so is what Python takes. The
command line resolves each once: flag, then environment, then file, then the default that stands here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from fink_dask.errors import SettingsError, parameter, variable
from fink_dask.units import Moment, Window, parse_duration, parse_memory, parse_moment, parse_rate

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
#: Whose alerts there are.
Survey = Literal["ztf", "lsst"]
SURVEYS: tuple[Survey, ...] = get_args(Survey)
#: Formats of the files, the default first, and those of them that keep the records as they came, without columns.
OUTFORMATS = ("parquet", "avro")
RECORD_OUTFORMATS = ("avro",)
#: What may be around each record in its value, the default first; `auto` is found out from a few of them.
FRAMINGS = ("auto", "none", "confluent", "single-object", "container")
#: What becomes of a record that can't be decoded, and of a range that Kafka no longer has all of; the defaults first.
ON_BAD_RECORD = ("quarantine", "fail")
ON_LOSS = ("continue", "fail")
#: How long Kafka may send nothing, or be unreachable, in seconds.
RECONNECT_TIMEOUT_S = 300.0
#: Kafka's names of them, the default first: https://kafka.apache.org/documentation/#security
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER")
#: The one that shows a token, which an identity server gives out for the user's name and password there.
OAUTHBEARER = SASL_MECHANISMS[-1]
#: What the URL of an object store begins with, as `Path` takes it for a directory.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

#: Where an identity server gives out tokens; without a name or password in it, as errors show it.
_TOKEN_URL = re.compile(r"https?://[^\s/@?#]+(?:/[^\s@#]*)?")

#: A server of Kafka; its port may be left out, and is Kafka's own then.
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,9}))?")
_PORT = 9092

#: Unless that port is taken; Dask's own default.
DASHBOARD_ADDRESS = "127.0.0.1:8787"

#: Headings of ``--help``, in their order.
WHAT, WHERE_TO, FOLLOW, SPEED, CONNECTION, CLUSTER, OTHER = GROUPS = (
    *("What to take", "Where it goes", "While the topic is filled", "How fast", "Connection", "Cluster", "Other"),
)


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a user gives a field."""

    #: What it does, for ``--help`` and the reference page.
    help: str
    group: str
    #: Its name for users, as Python has it, where that is not the field's.
    name: str = ""
    #: Other names on the command line.
    others: tuple[str, ...] = ()
    #: Stands for the value in ``--help``.
    metavar: str | None = None
    #: Makes the value of a text; gets `parameter` of the name, and the text.
    parse: Callable[[str, Any], Any] | None = None
    #: The values that there are; or those that a shell offers, where there are others too.
    choices: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()
    #: is_number, is_flag, is_file: whether it is a whole number of at least 1, a flag, or an existing file.
    is_number: bool = False
    is_flag: bool = False
    is_file: bool = False
    #: Whether it may be given several times; then `parse` gets all texts.
    is_repeatable: bool = False
    #: Whether it must be typed each time, as no environment and no file may replace data.
    is_typed: bool = False
    #: Whether the functions take it.
    in_python: bool = True
    #: What the command line takes where nothing is given, if it is not the field's own default.
    otherwise: Any = None


def given(default: Any, **option: Any) -> Any:
    """Make a field of a settings class that users can give."""
    return field(default=default, metadata={"option": Option(**option)})


def options_of(kind: type) -> dict[str, tuple[Option, Any]]:
    """List what users can give of a settings class: each field's option, with its name, and its default."""
    found = {}
    for each in fields(kind):
        if (option := each.metadata.get("option")) is not None:
            # Where the help says it in words, the command finds out.
            default = None if "[default:" in option.help or option.is_repeatable else each.default
            default = default if option.otherwise is None else option.otherwise
            found[each.name] = (replace(option, name=option.name or each.name), default)
    return found


def parse_names(option: str, text: str) -> tuple[str, ...]:
    """Read names separated by commas, repeats dropped."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise SettingsError(f"{option}: {text[:80]!r} should be names separated by commas")
    return tuple(dict.fromkeys(names))


def parse_columns(option: str, text: str) -> tuple[str, ...]:
    """Read the partition columns: names separated by commas, each once, or ``none``."""
    names = tuple(name.strip() for name in text.split(","))
    if names == ("none",):
        return ()
    if not all(names) or len(set(names)) < len(names):
        raise SettingsError(f"{option}: {text[:80]!r} should be names separated by commas, each once")
    return names


def parse_consumers(option: str, text: str) -> int:
    """Read how many ranges are consumed at once; -1 for as many as there can be."""
    try:
        number = int(text)
    except ValueError:
        raise SettingsError(f"{option}: {text[:40]!r} is not a valid integer") from None
    if number < 1 and number != -1:
        raise SettingsError(f"{option} must be at least 1, or -1 for the cores that this process may use")
    return number


def _check_known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{option} is {value[:40]}, but must be one of {', '.join(known)}")


def check_sendable(what: str, text: str | None) -> None:
    """Refuse a text that librdkafka would cut short at a NUL, or confluent_kafka end the process over.

    Raises SettingsError that says what it is, and not what is in it: it may be a password.
    """
    try:
        is_text = text is None or b"\0" not in text.encode()
    except UnicodeEncodeError:  # from an environment or an argument that is not UTF-8
        is_text = False
    if not is_text:
        raise SettingsError(f"{what} holds a NUL, or is not UTF-8, and Kafka's clients can't send it")


def _server_of(server: str) -> tuple[str, int]:
    """Return the name or the address of a server, and the port.

    Raises SettingsError for what librdkafka would look up as a name, or connect to at another port, without a word.
    """
    name = parameter("bootstrap_servers")
    scheme, there, rest = server.rpartition("://")
    if there and scheme.upper() not in SECURITY_PROTOCOLS:
        raise SettingsError(f"{name}: {server[:80]!r} is the address of a page; Kafka's are HOST:PORT")
    match = _SERVER.fullmatch(rest)
    if match is None:
        raise SettingsError(f"{name}: {server[:80]!r} is not HOST:PORT")
    if match[2] is not None and not 0 < int(match[2]) < 65536:
        raise SettingsError(f"{name}: {server[:80]!r}: ports are from 1 to 65535")
    return match[1].strip("[]"), int(match[2] or _PORT)


def has_sasl(protocol: str) -> bool:
    """Whether the protocol makes the broker ask who we are."""
    return protocol.startswith("SASL_")


def has_tls(protocol: str) -> bool:
    """Whether the protocol encrypts the connection."""
    return protocol.endswith("SSL")


@dataclass(frozen=True)
class Security:
    """Who we are to Kafka, and how the connection is protected.

    Raises SettingsError if there is no such protocol or mechanism, SASL lacks the user's name or password, or one can't
    be sent.
    """

    protocol: str = SECURITY_PROTOCOLS[0]
    #: One of `SASL_MECHANISMS`, for the two protocols with SASL.
    mechanism: str = SASL_MECHANISMS[0]
    #: username, password: for the same. The password is left out of the repr of this object, which Dask and others log.
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    #: Certificates of the authorities that are trusted, as PEM; otherwise those of the system. The text and not the
    #: name of a file, which workers on other machines may not have.
    ca_pem: str | None = field(default=None, repr=False)
    #: For OAUTHBEARER: where tokens are given out, and what for.
    token_url: str | None = None
    scope: str | None = None

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
        if has_sasl(self.protocol) and self.mechanism == OAUTHBEARER:
            self._check_tokens()

    def _check_tokens(self) -> None:
        name = parameter("oauth_token_url")
        if self.token_url is None:
            raise SettingsError(f"{OAUTHBEARER} needs the server that gives out tokens: give {name} https://…")
        if not _TOKEN_URL.fullmatch(self.token_url):
            raise SettingsError(f"{name} should be https://HOST/…, without a name or password in it")
        check_sendable(name, self.token_url)
        check_sendable(parameter("oauth_scope"), self.scope)


PLAINTEXT = Security()


@dataclass(frozen=True)
class KafkaSettings:
    """How to reach Kafka."""

    #: ``host:port`` pairs with commas between them.
    bootstrap_servers: str
    #: How long a broker may take to answer a question, in seconds.
    request_timeout_s: float = 30.0
    #: How long Kafka may send nothing to a range, or be unreachable, before that fails, in seconds.
    reconnect_timeout_s: float = RECONNECT_TIMEOUT_S
    #: Bytes a second that all consumers together may take from the line; as much as it carries otherwise.
    limit_rate: int | None = None
    #: Bytes of records that are fetched ahead.
    queue_bytes: int = QUEUE_BYTES
    #: About the bytes of a record, where these are not compressed; 0 where nobody knows.
    record_bytes: int = 0
    #: How many times as large as on the line records are at least, as far as anybody knows.
    expansion: float = 1.0
    #: Who we are to Kafka, and how the connection is protected.
    security: Security = PLAINTEXT

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise SettingsError(
                f"no Kafka servers: give {parameter('bootstrap_servers', 'HOST:PORT')}, or type fink-dask register"
            )
        check_sendable(parameter("bootstrap_servers"), self.bootstrap_servers)
        _ = self.servers  # refuses what is none
        if not 0 < self.reconnect_timeout_s < float("inf"):
            raise SettingsError(
                f"{parameter('reconnect_timeout')} is {self.reconnect_timeout_s:g} s, but must be positive and finite"
            )
        if self.limit_rate is not None and self.limit_rate < 1:
            raise SettingsError(f"{parameter('limit_rate')} is {self.limit_rate}, but must be at least 1 byte a second")

    @property
    def servers(self) -> list[tuple[str, int]]:
        """Return the name or the address of each server, and its port."""
        return [_server_of(server) for server in map(str.strip, self.bootstrap_servers.split(",")) if server]


@dataclass(frozen=True)
class Connection:
    """What a user says about how to reach Kafka; `find_kafka` looks up the rest."""

    bootstrap_servers: str | None = given(
        None,
        group=CONNECTION,
        others=("--servers",),
        metavar="HOST:PORT,…",
        help="The Kafka servers; by default those in ~/.finkclient/ztf_credentials.yml or lsst_credentials.yml.",
    )
    security_protocol: str = given(
        SECURITY_PROTOCOLS[0],
        group=CONNECTION,
        choices=SECURITY_PROTOCOLS,
        metavar="|".join(SECURITY_PROTOCOLS),
        help="Kafka's security protocol.",
    )
    sasl_mechanism: str = given(
        SASL_MECHANISMS[0],
        group=CONNECTION,
        choices=SASL_MECHANISMS,
        metavar="|".join(SASL_MECHANISMS),
        help="With SASL_…: how the password is proved.",
    )
    username: str | None = given(
        None,
        group=CONNECTION,
        metavar="NAME",
        help="With SASL_…: user name; by default that of the credentials file.",
    )
    #: Is no option: everybody on the machine can see the arguments of processes.
    password: str | None = field(default=None, repr=False)
    oauth_token_url: str | None = given(
        None,
        group=CONNECTION,
        metavar="URL",
        help="With OAUTHBEARER: where tokens are given out; the user name is the client's id there, and the password "
        "its secret.",
    )
    oauth_scope: str | None = given(
        None,
        group=CONNECTION,
        metavar="SCOPE",
        help="With OAUTHBEARER: the scope of tokens, where one is asked for.",
    )
    password_file: Path | None = given(
        None,
        group=CONNECTION,
        is_file=True,
        help=f"With SASL_…: a file with the password in one line; by default ${variable('password')}, or the "
        "credentials file.",
    )
    ssl_ca_file: Path | None = given(
        None,
        group=CONNECTION,
        is_file=True,
        help="With …SSL: the CA certificates to trust, as PEM; by default the system's.",
    )
    reconnect_timeout_s: float | None = given(
        None,
        name="reconnect_timeout",
        group=CONNECTION,
        metavar="TIME",
        parse=parse_duration,
        help="How long Kafka may send nothing, or Kafka or an object store be unreachable, before that is a failure.  "
        "[default: 5m]",
    )
    limit_rate: int | None = given(
        None,
        group=SPEED,
        metavar="RATE",
        parse=parse_rate,
        help="Read no more than this from Kafka, all consumers together, such as 5MB/s or 40Mbit/s.  [default: as "
        "much as the line carries]",
    )


@dataclass(frozen=True)
class FollowSettings:
    """How to follow a topic that is still being filled, and when to end: whichever of these comes first.

    Raises SettingsError if a value is out of its bounds.
    """

    #: The longest that an alert waits before its range is planned, in seconds, while a consumer is free.
    roll_interval_s: float = given(
        30.0,
        name="roll_interval",
        group=FOLLOW,
        metavar="TIME",
        parse=parse_duration,
        in_python=False,
        help="With --follow: the longest that an alert waits before its range is consumed.  [default: 30s]",
    )
    #: End when no partition has grown for this long, in seconds.
    idle_timeout_s: float | None = given(
        None,
        name="idle_timeout",
        group=FOLLOW,
        metavar="TIME",
        parse=parse_duration,
        in_python=False,
        help="With --follow: end when nothing has arrived for this long.  [default: 60s, if no other end is given]",
    )
    #: End when this many records are in the dataset, in its quarantine, or declared lost.
    until_count: int | None = given(
        None,
        group=FOLLOW,
        metavar="N",
        is_number=True,
        is_typed=True,
        in_python=False,
        help="With --follow: end once there are N alerts, such as the number that the portal announced.",
    )
    #: End at this time, which has a time zone.
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

    Raises SettingsError if a value is out of its bounds.
    """

    topic: str
    #: The dataset's directory, or its place on an object store; its ledger is the sibling ``OUTDIR.fink``.
    outdir: Path
    #: How to reach Kafka.
    kafka: KafkaSettings
    #: ``ztf`` or ``lsst``; says how to read times where the topic's name does not.
    survey: str | None = given(
        None,
        group=WHAT,
        choices=SURVEYS,
        help="The survey; by default taken from the topic's name.",
    )
    #: ``time``, columns or dotted fields; empty for no partition columns. This and `survey`, `columns`, `where` and
    #: `outformat` are None where they are not given: a dataset goes on with what it was begun with.
    partitionby: tuple[str, ...] | None = given(
        None,
        group=WHERE_TO,
        metavar="WHAT",
        parse=parse_columns,
        suggested=("time", "finkclass", "tnsclass", "classId", "none"),
        help="Partition columns: time (year=YYYY/month=MM/day=DD), finkclass, tnsclass, classId, any column or dotted "
        "field, several separated by commas, or none.  [default: what the dataset was begun with, or none]",
    )
    #: How many ranges are consumed at once.
    nconsumers: int = given(
        1,
        group=SPEED,
        metavar="N",
        parse=parse_consumers,
        otherwise=-1,
        help="Ranges to consume at once.  [default: the cores that this process may use, those of all jobs, or the "
        "threads of all workers of --scheduler]",
    )
    #: Alerts that are decoded at once; small batches are joined.
    batchsize: int = given(
        BATCHSIZE,
        group=SPEED,
        metavar="N",
        is_number=True,
        in_python=False,
        help="Alerts to decode at once; more or fewer where they would not come to 4 to 8 MiB.",
    )
    #: The most alerts that the dataset may hold.
    limit: int | None = given(
        None,
        group=WHAT,
        metavar="N",
        is_number=True,
        help="The most alerts that the dataset may hold in all; with several topics, each dataset.",
    )
    #: A writer schema to use instead of the one in Kafka.
    schema_file: Path | None = given(
        None,
        name="schema",
        group=WHAT,
        is_file=True,
        help="Avro schema file, instead of Kafka's.",
    )
    framing: str = given(
        FRAMINGS[0],
        group=WHAT,
        choices=FRAMINGS,
        help="What is around each record in its value: nothing, Confluent's five bytes, Avro's single-object "
        "encoding, or a container file; auto finds out from a few records.",
    )
    #: Consumer group whose offsets are committed at the end.
    group_id: str | None = given(
        None,
        group=OTHER,
        metavar="NAME",
        help="Consumer group to commit offsets for at the end, for other tools.",
    )
    #: Raw bytes that a range is planned to hold.
    range_bytes: int = RANGE_BYTES
    #: The columns, or fields of structs with dots, that are decoded; all of them in a new dataset otherwise.
    columns: tuple[str, ...] | None = given(
        None,
        group=WHAT,
        metavar="NAME,…",
        parse=parse_names,
        help="Take only these columns, or fields of structs such as candidate.jd; the others are not even decoded.  "
        "[default: what the dataset was begun with, or all]",
    )
    #: The condition that is true of the alerts to take; all of them in a new dataset otherwise.
    where: str | None = given(
        None,
        group=WHAT,
        metavar="CONDITION",
        help="Take only alerts for which this is true, such as 'candidate.magpsf < 18 and finkclass == "
        '"SN candidate"\'; the others are counted.  [default: what the dataset was begun with, or none]',
    )
    #: One of `OUTFORMATS`, by default the first.
    outformat: str | None = given(
        None,
        group=WHERE_TO,
        choices=OUTFORMATS,
        help="Format of the files; Avro files hold the records as they came.  [default: what the dataset was begun "
        "with, or parquet]",
    )
    #: One of `COMPRESSIONS`; of Parquet files.
    compression: str = given(
        COMPRESSION,
        group=WHERE_TO,
        choices=COMPRESSIONS,
        help="Codec of Parquet files; bytes that it makes hardly smaller, as cutouts of ZTF, stay as they are.",
    )
    #: Bytes that all processes together may take; otherwise half of what this process may use.
    memory_limit: int | None = given(
        None,
        group=SPEED,
        metavar="BYTES",
        parse=parse_memory,
        help="Memory for all processes together, such as 4GB.  [default: half of what this process may use]",
    )
    on_bad_record: str = given(
        ON_BAD_RECORD[0],
        group=WHAT,
        choices=ON_BAD_RECORD,
        help="If a record can't be decoded: put it into quarantine, or fail.",
    )
    on_loss: str = given(
        ON_LOSS[0],
        group=WHAT,
        choices=ON_LOSS,
        help="If Kafka has removed alerts before they were read: declare them lost and continue, or fail.",
    )
    #: Wait for what is still to come; otherwise take only what is there when the transfer begins.
    follow: FollowSettings | None = None
    #: Begin even where the disk seems too small.
    force: bool = given(
        False,
        group=WHERE_TO,
        is_flag=True,
        is_typed=True,
        help="Start even if the disk seems too small for what there is to write.",
    )

    #: since, until: only alerts that came to Kafka from, and before, these times; a dataset keeps `since`, and `until`
    #: is of a run.
    since: Moment | None = given(
        None,
        group=WHAT,
        metavar="TIME",
        parse=parse_moment,
        is_typed=True,
        help="Take only alerts that came to Kafka at this time or later: 2026-02-24, 2026-02-24T03:00 (UTC unless it "
        "has a zone), or 6h for the last six hours.",
    )
    until: Moment | None = given(
        None,
        group=WHAT,
        metavar="TIME",
        parse=parse_moment,
        is_typed=True,
        help="Take only alerts that came to Kafka before this time; with --follow, end at it.",
    )
    #: How long to wait for a topic that is not there yet, in seconds; otherwise that is an error.
    wait_for_topic_s: float | None = given(
        None,
        name="wait_for_topic",
        group=WHAT,
        metavar="TIME",
        parse=parse_duration,
        help="Wait this long, such as 10m, for a topic, its schema and its first alert that are not there yet.",
    )

    @property
    def window(self) -> Window:
        """The times of the alerts to take."""
        return Window(self.since, self.until)

    def __post_init__(self) -> None:
        Window(self.since, self.until)  # which checks them
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
        if self.outformat is not None:
            _check_known(parameter("outformat"), self.outformat, OUTFORMATS)
        _check_known(parameter("framing"), self.framing, FRAMINGS)
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

    Raises SettingsError if it is not one.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        raise SettingsError(f"{option} is {text[:80]!r}, but should be HOST:PORT")
    return f"{host or '127.0.0.1'}:{port}"
