"""What the ledger records: the plan of a transfer and the marker of a committed range. Pure, frozen, JSON both ways."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cache, cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Interval, OffsetRange, merge, total
from fink_dask.settings import OUTFORMATS, SURVEYS
from fink_dask.units import pluralize

#: Increased when a document's form changes so that an older fink-dask could misread it. Earlier formats are still read.
#: Plans of format 2 have ids of 16 digits, and markers of format 2 alerts that were handed over. Those of format 3 have
#: packed intervals.
_FORMATS = {"plan": 2, "marker": 3}
_FIRST_FORMAT = 1

#: How a document begins whose content stands in the form that is hashed: then it need not be written once more to be
#: checked. In documents of before, keys are in another order.
_HEAD = re.compile(rb'\{"fink_dask":"([a-z]+)","format":1,"sha256":"([0-9a-f]{64})","([a-z]+)":')

#: Without what `json.loads` looks for first: another encoding, or spaces.
_DECODER = json.JSONDecoder()

#: The form of the names of attempts and plans: they become names of directories, which are removed in the end.
_NAME = re.compile(r"[0-9a-f]{1,32}")
#: The names of framings: of two of them, with the bytes that say which schema it is.
_FRAMING = re.compile(r"none|container|prediction|confluent(:[0-9a-f]{8})?|single-object(:[0-9a-f]{16})?")
#: Hex digits of a plan's id: 64 bits, which no two plans share by chance.
PLAN_ID_CHARS = 16
_OLD_PLAN_ID_CHARS = 8
#: Where the schema of a joined dataset is from: nobody wrote records with it.
JOINED = "joined"
#: More revisions of a range than anybody makes, but no more than the name of a marker can hold.
_MAX_REVISIONS = 10**6
#: What identities usually have in JSON, and leave out.
_USUAL: dict[str, Any] = {
    "more_schemas": [],
    "outformat": OUTFORMATS[0],
    "framing": "none",
    **dict.fromkeys(("where", "partitionby_asked", "since", "since_asked")),
}
#: The fields of a marker that hold intervals; more than so many are packed, which takes a tenth of the room.
_INTERVALS = ("lost", "holes", "duplicates", "handed_over")
_MANY = 100
#: Bytes of what is packed, once it is unpacked: more than the largest ranges have.
_MAX_UNPACKED = 2**24
#: What reading JSON of unexpected types raises; an infinite number overflows.
_MISREAD = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class UnknownFormatError(LedgerError):
    """A document is of a format that a later fink-dask writes: it is no damage, and must not be mended as one."""


def seal(kind: str, content: dict[str, Any]) -> bytes:
    """Write `content` as a document of a kind (``plan``, ``marker``), with its checksum."""
    canonical = _canonical(content)
    digest = hashlib.sha256(canonical).hexdigest()
    head = f'{{"fink_dask":"{kind}","format":{_format_of(kind, content)},"sha256":"{digest}","{kind}":'
    return b"".join((head.encode(), canonical, b"}"))


def _format_of(kind: str, content: Mapping[str, Any]) -> int:
    """Choose the earliest format that has what is in a document, so that earlier versions read whatever they can."""
    if kind != "marker":
        return _FORMATS.get(kind, _FIRST_FORMAT)
    if any(isinstance(content.get(name), str) for name in _INTERVALS):
        return 3
    return 2 if "handed_over" in content else _FIRST_FORMAT


def unseal(kind: str, path: Path) -> dict[str, Any]:
    """Read a document back.

    Raises LedgerError if it is not a document of this kind, or not as it was written.
    Raises FileNotFoundError if there is none.
    """
    return opened(kind, path.read_bytes(), path)


def opened(kind: str, raw: bytes, path: Path | str) -> dict[str, Any]:
    """Read a document that `path` holds.

    Raises UnknownFormatError if a later fink-dask has written it.
    Raises LedgerError if it is not a document of this kind, or not as it was written.
    """
    try:
        if (head := _HEAD.match(raw)) is not None and head[1] == head[3] == kind.encode():
            canonical = raw[head.end() : -1]
            if hashlib.sha256(canonical).hexdigest().encode() == head[2] and raw.endswith(b"}"):
                sealed, end = _DECODER.raw_decode(text := canonical.decode())
                if end == len(text):
                    return cast(dict[str, Any], sealed)
        document = json.loads(raw)
        content: dict[str, Any] = document[kind]
        version, expected = document["format"], document["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(f"{path} is damaged: it is not a {kind} of a fink-dask ledger") from error
    newest = _FORMATS.get(kind, _FIRST_FORMAT)
    if type(version) is not int or not _FIRST_FORMAT <= version <= newest:
        is_later = type(version) is int and version > newest
        raise (UnknownFormatError if is_later else LedgerError)(
            f"{path} has format {str(version)[:20]!r}, and this fink-dask reads formats up to {newest}: use the one "
            "that wrote it"
        )
    if checksum(content) != expected:
        raise LedgerError(f"{path} was changed after it was written: its checksum differs")
    return content


def checksum(content: dict[str, Any]) -> str:
    """Hash a JSON object, whatever the order of its keys."""
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    """Write a JSON object in the one form that is hashed."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


#: What the annotations of fields stand for, of those that JSON has; anything else is made from it, and so checked.
_KINDS: Mapping[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}
#: And of those that hold several values: of what kind these are.
_INNER: Mapping[str, tuple[type, str]] = {
    "tuple[str, ...]": (tuple, "str"),
    "Mapping[str, float]": (dict, "float"),
    "Mapping[int, int]": (dict, "int"),
}
#: More than any number in a ledger, and no more than others can count to.
_MOST = 2**63
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_types(record: object) -> None:
    """Refuse a record whose values are not of its fields' types: a checksum says only that nobody changed them since.

    Raises ValueError if one is not, or a number is beyond all bounds, or a text can't be written or be the name of a
    file.
    """
    rules = _rules_of(type(record))  # type: ignore[arg-type]  # classes can be hashed
    for value, (name, is_optional, outer, kinds) in zip(rules.values_of(record), rules.each, strict=True):
        if value is None and is_optional:
            continue
        if outer is None:
            _check_value(name, value, kinds)
        elif type(value) is not outer:
            raise ValueError(f"{name} is of another type")
        else:
            for one in _values_in(value):
                _check_value(name, one, kinds)


def _values_in(held: Any) -> Iterable[Any]:
    return held.values() if type(held) is dict else held


def _check_value(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    kind = type(value)
    if kind not in kinds:
        raise ValueError(f"{name} is of another type")
    if kind is str:
        if "\0" in value or not (value.isascii() or _can_be_written(value)):
            raise ValueError(f"{name} is no text")
    elif not -_MOST < value < _MOST:  # NaN is not
        raise ValueError(f"{name} is beyond all bounds")


class _Rules(NamedTuple):
    """The fields of a class that are checked."""

    values_of: Callable[[object], tuple[Any, ...]]
    #: Of each: its name, whether it may be None, what holds its values, and kinds.
    each: tuple[tuple[str, bool, type | None, tuple[type, ...]], ...]


@cache
def _rules_of(kind: type[Any]) -> _Rules:
    rules = []
    for each in fields(kind):
        annotation = str(each.type)
        words = annotation.removesuffix(" | None")
        outer, inner = _INNER.get(words, (None, words))
        if inner in _KINDS:
            rules.append((each.name, words != annotation, outer, _KINDS[inner]))
    assert len(rules) > 1, "of one name it is no tuple"
    return _Rules(attrgetter(*[name for name, *_ in rules]), tuple(rules))


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that a range wrote, or the share that it has in a file of many ranges."""

    #: Where it belongs, relative to the dataset (to the ledger, for a quarantine file), with slashes.
    path: str
    #: Its name in the staging directory of the attempt.
    staged: str
    #: The range's rows in it.
    rows: int
    size: int
    #: Hash of its content.
    sha256: str
    #: All rows of a compacted file, which holds those of other ranges as well; None for a range's own file.
    file_rows: int | None = None

    def __post_init__(self) -> None:
        check_inside(self.path)
        check_inside(self.staged)
        if self.rows < 0 or self.size < 0 or (self.file_rows is not None and self.file_rows < self.rows):
            raise LedgerError(f"a marker gives {self.path[:80]!r} an impossible size")

    @property
    def all_rows(self) -> int:
        """Rows of the whole file."""
        return self.rows if self.file_rows is None else self.file_rows

    @property
    def is_shared(self) -> bool:
        """Tell whether other ranges have rows in it as well."""
        return self.file_rows is not None


def check_inside(name: str) -> None:
    """Refuse the name of a file that would lie outside dataset and ledger."""
    if name[:1] not in {"/", ".", ""} and ".." not in name and "\0" not in name and ":" not in name:
        return  # as nearly all are
    parts = [part for part in name.split("/") if part not in {"", "."}]  # as pathlib has them, which takes longer
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "://" in name:
        raise LedgerError(f"a marker names a file outside the dataset: {name[:80]!r}")


@dataclass(frozen=True)
class Identity:
    """What must stay the same for a ledger to be continued."""

    #: topic, topic_id: the topic and Kafka's id of it.
    topic: str
    topic_id: str
    #: What the partition columns come from.
    partitionby: tuple[str, ...]
    #: How times are read; None where that does not matter.
    survey: str | None
    #: Fingerprint of the writer schema.
    schema_sha256: str
    #: Where the writer schema came from.
    schema_source: str
    #: The columns, or fields of structs, that the dataset has; None for all of them.
    columns: tuple[str, ...] | None = None
    #: Fingerprints of the writer schemas that were taken in before the plan was made, beside the first one.
    more_schemas: tuple[str, ...] = ()
    #: The condition on the alerts that the dataset has, in its one form; None for all of them.
    where: str | None = None
    #: The format of the files, one of `fink_dask.settings.OUTFORMATS`.
    outformat: str = OUTFORMATS[0]
    #: What was asked for in place of `partitionby`, where the alerts don't have it.
    partitionby_asked: tuple[str, ...] | None = None
    #: The time of the first alerts in Kafka that were asked for, in UTC (ISO 8601); None for all of them.
    since: str | None = None
    #: How it was given, where that is how long ago it was.
    since_asked: str | None = None
    #: What is around each record in its value; see `fink_dask.avro.framing.Framing`.
    framing: str = "none"

    @property
    def each_schema(self) -> tuple[Identity, ...]:
        """The same with one schema at a time, in the order in which they were taken in."""
        names = (self.schema_sha256, *self.more_schemas)
        return tuple(replace(self, schema_sha256=name, more_schemas=()) for name in names)


@dataclass(frozen=True)
class Plan:
    """The frozen list of ranges of one generation."""

    #: 1 for the first plan of a ledger, and one more each time the topic has grown.
    generation: int
    #: What the ranges belong to.
    identity: Identity
    #: In plan order: by partition, then by offset.
    ranges: tuple[OffsetRange, ...]
    #: Raw bytes of all ranges, estimated from a sample; 0 where none could be had.
    estimated_bytes: int
    #: In the first generation, where a time was asked for: each partition, and its first offset of that time. What is
    #: before it is neither missing nor lost.
    begins: tuple[tuple[int, int], ...] = ()
    #: The time of the first alerts in Kafka that were not asked for any more, in UTC (ISO 8601); None for all. A later
    #: generation may plan them.
    until: str | None = None
    #: The most alerts that were asked for, where the topic held more; None for all of them.
    limit: int | None = None
    #: Characters of `plan_id`. Of 8, which ledgers once had, two plans of a ledger can be the same by chance.
    id_chars: int = PLAN_ID_CHARS

    @cached_property
    def plan_id(self) -> str:
        """Hex digits that follow from the content: the same plan gives the same file names."""
        return checksum(self.to_json())[: self.id_chars]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON holds it."""
        values = asdict(self.identity).items()
        identity = {name: list(value) if isinstance(value, tuple) else value for name, value in values}
        for name, usual in _USUAL.items():
            if identity[name] == usual:
                del identity[name]  # plans without it keep their ids
        content = {
            "generation": self.generation,
            "identity": identity,
            "estimated_bytes": self.estimated_bytes,
            "ranges": [[offset_range.partition, offset_range.start, offset_range.end] for offset_range in self.ranges],
        }
        if self.begins:
            content["begins"] = [list(pair) for pair in self.begins]
        if self.until is not None:
            content["until"] = self.until
        if self.limit is not None:
            content["limit"] = self.limit
        return content if self.id_chars == _OLD_PLAN_ID_CHARS else {**content, "id_chars": self.id_chars}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """Read the plan from JSON.

        Raises LedgerError if something is missing or of another type.
        """
        try:
            values = dict(content["identity"])
            for name in ("partitionby", "columns", "more_schemas", "partitionby_asked"):
                if isinstance(values.get(name), list):
                    values[name] = tuple(values[name])
            if values.get("outformat", OUTFORMATS[0]) not in OUTFORMATS:
                raise ValueError(f"unknown format {str(values['outformat'])[:40]!r}")
            if not _FRAMING.fullmatch(values.get("framing", "none")):
                raise ValueError(f"unknown framing {str(values['framing'])[:40]!r}")
            if content.get("id_chars", PLAN_ID_CHARS) not in {PLAN_ID_CHARS, _OLD_PLAN_ID_CHARS}:
                raise ValueError("it has an id of no known length")
            identity = Identity(**values)
            check_types(identity)
            if not all(map(_SHA256.fullmatch, (identity.schema_sha256, *identity.more_schemas))):
                raise ValueError("a schema has no SHA-256")
            if identity.survey not in {None, *SURVEYS}:
                raise ValueError(f"unknown survey {str(identity.survey)[:40]!r}")
            for time in filter(None, (identity.since, content.get("until"))):
                if datetime.fromisoformat(time).tzinfo is None:
                    raise ValueError(f"{time[:40]!r} has no time zone")
            begins = tuple((int(partition), int(offset)) for partition, offset in content.get("begins", ()))
            if any(min(pair) < 0 for pair in begins):
                raise ValueError("a partition begins below 0")
            return cls(
                generation=int(content["generation"]),
                identity=identity,
                ranges=tuple(OffsetRange(*map(int, numbers)) for numbers in content["ranges"]),
                estimated_bytes=int(content["estimated_bytes"]),
                begins=begins,
                until=None if content.get("until") is None else str(content["until"]),
                limit=None if content.get("limit") is None else int(content["limit"]),
                id_chars=int(content.get("id_chars", _OLD_PLAN_ID_CHARS)),
            )
        except _MISREAD as error:
            raise LedgerError(f"the ledger's plan can't be read: {error}") from error


def _pack(intervals: Sequence[Interval], start: int) -> str | Sequence[Interval]:
    """Write many intervals of a range that begins at `start` as gaps and lengths, which are small, and compressed."""
    if len(intervals) <= _MANY:
        return intervals
    ordered = merge(intervals)
    gaps = [first - before for (first, _), before in zip(ordered, (start, *(end for _, end in ordered)), strict=False)]
    text = json.dumps([gaps, [end - first for first, end in ordered]], separators=(",", ":")).encode()
    return b64encode(zlib.compress(text)).decode() if len(text) <= _MAX_UNPACKED else intervals


def _unpack(packed: str, start: int) -> Iterator[Interval]:
    """Read what `_pack` has written.

    Raises ValueError or TypeError if it is something else.
    """
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(b64decode(packed, validate=True), _MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("packed intervals are cut short, too large, or have something behind them")
    gaps, lengths = json.loads(text)
    for gap, length in zip(gaps, lengths, strict=True):
        if type(gap) is not int or type(length) is not int or gap < 0 or length < 1:
            raise ValueError("a packed interval is none")
        yield start + gap, (start := start + gap + length)


@dataclass(frozen=True, slots=True)
class Marker:
    """What a committed range holds: every offset of it is in exactly one of seven places.

    Raises LedgerError if the seven do not add up to the range, or contradict each other.
    """

    #: The plan that the range belongs to.
    plan_id: str
    range: OffsetRange
    #: The attempt that won.
    attempt: str
    #: Alerts in the dataset.
    rows: int
    #: Bytes of the values that were consumed.
    raw_bytes: int
    #: The range's files, one for each partition key; after a compaction its shares in files of many ranges.
    files: tuple[DataFile, ...]
    #: Records that could not be decoded.
    quarantined: int = 0
    #: The file that holds their raw bytes.
    quarantine: DataFile | None = None
    #: Alerts that the condition of the plan is not true of.
    filtered: int = 0
    #: Intervals that retention removed before they could be read.
    lost: tuple[Interval, ...] = ()
    #: Intervals that hold no record for a reader (transaction markers, aborted records, compaction).
    holes: tuple[Interval, ...] = ()
    #: When the loss was noticed, in UTC (ISO 8601); None where nothing was lost.
    lost_at: str | None = None
    #: 0 for the first marker of a range, and one more for each repair, or retry of what is quarantined. A marker is
    #: never changed: the one with the highest revision counts.
    revision: int = 0
    #: Files of earlier revisions that this one replaces, relative to the dataset, or to the ledger for those of the
    #: quarantine; they are removed once its own are published.
    superseded: tuple[str, ...] = ()
    #: Kafka's newest timestamp among the records, in milliseconds since 1970-01-01 UTC; None where none has any.
    newest_ms: int | None = None
    #: Intervals of alerts that a compaction has left out, because another one with the same identifier is there.
    duplicates: tuple[Interval, ...] = ()
    #: Intervals of alerts whose files were copied elsewhere, and are not here any more.
    handed_over: tuple[Interval, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.attempt):
            raise LedgerError(f"{self._words} does not name an attempt: {self.attempt[:80]!r}")
        if not _NAME.fullmatch(self.plan_id):
            raise LedgerError(f"{self._words} does not name a plan: {self.plan_id[:80]!r}")
        if not 0 <= self.revision < _MAX_REVISIONS:
            raise LedgerError(f"{self._words} has an impossible revision, {self.revision}")
        for name in self.superseded:
            check_inside(name)
        if self.superseded and not {file.path for file in self.each_file}.isdisjoint(self.superseded):
            raise LedgerError(f"{self._words} both names and supersedes a file")
        absent = (*self.lost, *self.holes, *self.duplicates, *self.handed_over)
        accounted = self.rows + self.quarantined + self.filtered + (total(absent) if absent else 0)
        if accounted != len(self.range) or min(self.rows, self.quarantined, self.filtered, self.raw_bytes) < 0:
            raise LedgerError(f"{self._words} accounts for {accounted:,} of {pluralize(len(self.range), 'offset')}")
        if absent:
            inside = all(self.range.start <= start < end <= self.range.end for start, end in absent)
            if not inside or total(merge(absent)) != total(absent):
                raise LedgerError(f"{self._words} holds intervals that overlap, or are outside the range")
        if sum([file.rows for file in self.files]) != self.rows:
            raise LedgerError(f"{self._words} names files that do not add up to its {pluralize(self.rows, 'row')}")
        if self.quarantined != (self.quarantine.rows if self.quarantine is not None else 0):
            records = pluralize(self.quarantined, "record")
            raise LedgerError(f"{self._words} names a quarantine file that does not hold its {records}")

    @property
    def transferred(self) -> int:
        """Its alerts that were written, whether they are still in the dataset or were handed over."""
        return self.rows + total(self.handed_over)

    @property
    def each_file(self) -> tuple[DataFile, ...]:
        """Its files, with that of the quarantine."""
        return self.files if self.quarantine is None else (*self.files, self.quarantine)

    @property
    def _words(self) -> str:
        return f"the marker of range {self.range.name}"

    def to_json(self) -> dict[str, Any]:
        """Return the marker as JSON holds it."""
        content = asdict(self)
        content["range"] = [self.range.partition, self.range.start, self.range.end]
        if not self.handed_over:
            del content["handed_over"]  # markers without it are those of earlier versions
        return content

    def sealed(self) -> bytes:
        """Return the marker as a document, with its checksum; many intervals are packed.

        What is compared, as a compaction compares it, is not: how well something is compressed depends on the library.
        """
        content = self.to_json()
        for name in _INTERVALS:
            if name in content:
                content[name] = _pack(content[name], self.range.start)
        return seal("marker", content)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Marker:
        """Read the marker from JSON.

        Raises LedgerError if something is missing or of another type, or does not add up.
        """
        try:
            values = dict(content)
            values["range"] = OffsetRange(*map(int, values["range"]))
            values["files"] = tuple([DataFile(**file) for file in values["files"]])
            values["quarantine"] = None if values["quarantine"] is None else DataFile(**values["quarantine"])
            for name in _INTERVALS:
                if isinstance(intervals := values.get(name, []), str):
                    intervals = list(_unpack(intervals, values["range"].start))
                elif intervals or type(intervals) is not list:
                    intervals = [(int(start), int(end)) for start, end in intervals]
                values[name] = tuple(intervals)
            superseded = values.get("superseded", [])
            # Left as it is where it is no list, so that it is refused as what it is.
            values["superseded"] = tuple(superseded) if isinstance(superseded, list) else superseded
            values["revision"] = int(values.get("revision", 0))
            newest_ms = values.get("newest_ms")
            values["newest_ms"] = None if newest_ms is None else int(newest_ms)
            marker = cls(**values)
            check_types(marker)
            for file in marker.each_file:
                check_types(file)
            return marker
        except _MISREAD as error:
            raise LedgerError(f"a marker can't be read: {error}") from error


@dataclass(frozen=True)
class DamagedMarker:
    """A marker that can't be read."""

    #: The plan of its range.
    plan_id: str
    range: OffsetRange
    #: The number of the marker.
    revision: int
    error: LedgerError
