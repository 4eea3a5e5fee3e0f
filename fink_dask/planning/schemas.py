"""Find out what is to be transferred, and whether it can be; read Kafka and the ledger, and write nothing.

The writer schemas of a topic are in a file, in its schema topic, or in the keys of its records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fink_dask.avro.evolution import Versions, project
from fink_dask.avro.files import read_schema_file
from fink_dask.avro.framing import (
    NONE,
    PREDICTION,
    UNREADABLE,
    Framing,
    foreign_to,
    may_be_framed,
    recognise,
    unpack_file,
)
from fink_dask.avro.predictions import SCHEMA
from fink_dask.avro.schema import AvroSchema, field_type, parse_schema
from fink_dask.dataset.partitioning import IDENTIFIERS, Partitioning
from fink_dask.dataset.schema_versions import add_version, known_identities, known_versions, partitioning_of
from fink_dask.dataset.writer import MAX_KEYS
from fink_dask.errors import BrokerError, LedgerError, MissingSchemaError, SchemaError, SettingsError, parameter
from fink_dask.kafka.inspect import UNKNOWN_ID, Inspector, TopicDescription
from fink_dask.kafka.offsets import Interval
from fink_dask.kafka.topics import check_topic_name, holds_predictions, survey_of
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity, Plan
from fink_dask.planning.continuing import canonical_columns, canonical_condition, check_same_topic, go_on_with
from fink_dask.planning.plan import known_topic_id, planned_ends, unplanned
from fink_dask.ranges.keys import is_schema_like, misfit_in_words
from fink_dask.settings import FRAMINGS, OUTFORMATS, RECORD_OUTFORMATS, TransferSettings
from fink_dask.units import pluralize

_KEYS = "record key"
#: Where the schema of predictions is from, and that of alerts which were given theirs: from this program.
_OURS = "fink-dask"
#: Partition columns that Fink's portals print for every topic, whether its alerts have them or not.
_CLASSES = {"finkclass", "tnsclass", "classId"}


@dataclass(frozen=True)
class Incompatible:
    """A schema of some records that can't be in the dataset."""

    schema: AvroSchema
    reason: str


@dataclass(frozen=True)
class FoundSchemas:
    """The schemas to read a topic's records with."""

    #: The schemas that fit each other; the first one is the dataset's.
    versions: Versions
    #: Where they came from; see `TopicSchema`.
    source: str
    #: Those that don't fit.
    misfits: tuple[Incompatible, ...] = ()


def _find(
    settings: TransferSettings,
    inspector: Inspector,
    description: TopicDescription,
    ledger: Ledger,
    plans: Sequence[Plan],
    asked: Identity,
) -> FoundSchemas:
    """Find the schemas: the user's file, or else Kafka's, or else, as Kafka keeps them only for days, the ledger's.

    Where records have their schema in the key, the first and the last records of what is not planned yet are looked at.
    A file that holds one of these schemas chooses it; any other file is what all records were written with.

    Raises SchemaError if there is none, or it can't be used; or if Avro files were asked for, and there are several to
    choose from.
    """
    before = plans[-1].identity if plans else None
    if before is not None and before.schema_source == _KEYS:
        return _more_of(settings, inspector, description, ledger, before, _unplanned(description, plans))
    if settings.schema_file is not None:
        chosen = read_schema_file(settings.schema_file)
        keys = _sample_keys(inspector, description, plans, asked.framing) if before is None else []
        if chosen not in (sampled := parse_keys(keys)):
            return FoundSchemas(Versions((chosen,)), "file")
        return _fitted(Versions((chosen,)), sampled, asked)
    if before is not None:
        return _again(inspector, description, ledger, before)
    sampled, source = _in_kafka(inspector, description, asked.framing)
    if source != _KEYS:
        return FoundSchemas(Versions((sampled[0],)), source)
    if asked.outformat in RECORD_OUTFORMATS and len(sampled) > 1:
        raise SchemaError(
            f"its records have {len(sampled)} schemas, and {asked.outformat.capitalize()} files have one: leave out "
            f"{parameter('outformat', asked.outformat)}, or choose one with {parameter('schema', 'FILE')} "
            "(--dump-schemas writes them all)",
            description.topic,
        )
    return _fitted(Versions((sampled[0],)), sampled, asked)


def show_schemas(inspector: Inspector, topic: str) -> tuple[FoundSchemas, Identity]:
    """Find the schemas that a new dataset of a topic would have, whatever its options, and its identity.

    Raises SchemaError if there is none, or it can't be used.
    Raises BrokerError if there is no such topic, or the broker refuses or does not answer.
    """
    description = inspector.describe(topic)
    framing = _may_be_framed(inspector, description)
    framing = framing if framing.kind == "container" else Framing()
    sampled, source = _in_kafka(inspector, description, framing.name)
    identity = Identity(topic, description.topic_id, (), None, sampled[0].fingerprint, source, framing=framing.name)
    if source != _KEYS:
        return FoundSchemas(Versions((sampled[0],)), source), identity
    return _fitted(Versions((sampled[0],)), sampled, identity), identity


def _again(inspector: Inspector, description: TopicDescription, ledger: Ledger, before: Identity) -> FoundSchemas:
    """Find the schema of a continued dataset: Kafka's, or else, as Kafka keeps it only for days, the ledger's.

    One that was begun with a file goes on with what was in it.
    """
    if before.schema_source in {"file", _OURS}:
        return FoundSchemas(Versions((ledger.schema(before),)), before.schema_source)
    try:
        found = inspector.schema(description.topic, description)
    except SchemaError:
        return FoundSchemas(Versions((ledger.schema(before),)), before.schema_source)
    return FoundSchemas(Versions((parse_schema(found.text),)), found.source)


def _in_kafka(inspector: Inspector, description: TopicDescription, framing: str) -> tuple[list[AvroSchema], str]:
    """Find the schemas that Kafka has, at least one, and say where."""
    if framing == "container":
        keys = _sample_keys(inspector, description, (), framing)
        if not keys:
            raise SchemaError("no value that was looked at is an Avro container file of one alert", description.topic)
        return parse_keys(keys) or [parse_schema(keys[0])], _KEYS
    found = inspector.schema(description.topic, description)
    if found.source != _KEYS:
        return [parse_schema(found.text)], found.source
    keys = [found.text, *inspector.sample_keys(description.topic, _unplanned(description, ()))]
    # A key that is not a schema does not matter, unless no key is one.
    return parse_keys(keys) or [parse_schema(found.text)], found.source


def _sample_keys(
    inspector: Inspector, description: TopicDescription, plans: Sequence[Plan], framing: str
) -> list[bytes]:
    """Read a few keys, or the schemas that container files have in their heads."""
    spans = _unplanned(description, plans)
    if framing != "container":
        return inspector.sample_keys(description.topic, spans)
    found: dict[bytes, None] = {}
    for value in inspector.values(description.topic, spans):
        try:
            found[unpack_file(value)[0]] = None
        except UNREADABLE:
            continue  # it goes to the quarantine
    return list(found)


def _may_be_framed(inspector: Inspector, description: TopicDescription) -> Framing:
    return may_be_framed(inspector.values(description.topic, _unplanned(description, ())))


def _find_first(
    settings: TransferSettings, inspector: Inspector, description: TopicDescription, ledger: Ledger, asked: Identity
) -> tuple[FoundSchemas, Framing]:
    """Find the schemas of a new dataset, and what is around the records of its topic.

    Raises SchemaError if there is no schema, it can't be used, or there are several and nothing tells which one this
    is.
    """
    if settings.framing != FRAMINGS[0]:
        asked = replace(asked, framing=settings.framing)
        return _find(settings, inspector, description, ledger, (), asked), Framing(settings.framing)
    if holds_predictions(description.topic):
        return FoundSchemas(Versions((SCHEMA,)), _OURS), Framing(PREDICTION)
    found, missing = None, None
    try:
        # Most topics have a schema, and nothing around their records: that is looked at in the meantime.
        found = _find(settings, inspector, description, ledger, (), replace(asked, framing=NONE))
    except MissingSchemaError as error:
        missing = error
    values = inspector.values(description.topic, _unplanned(description, ()))
    may_be = may_be_framed(values)
    if may_be.kind == "container":  # which has its schema with it
        asked = replace(asked, framing=may_be.name)
        return _find(settings, inspector, description, ledger, (), asked), may_be
    if found is None:
        assert missing is not None
        words = "" if may_be.kind == NONE else f"; its values seem to have {may_be.in_words()} around them"
        if foreign := foreign_to(values, None):
            words = f"; its values seem to be {foreign}, and not Avro alone"
        raise MissingSchemaError(f"{missing.message}{words}", description.topic) from missing
    certain = recognise(values, found.versions.first)
    if len(certain) > 1:
        raise SchemaError(
            f"its records have {' and '.join(each.in_words() for each in certain[:4])}: no registry is asked which "
            f"schema is which; if they are one and the same, say {parameter('framing', certain[0].kind)}",
            description.topic,
        )
    if foreign := foreign_to(values, found.versions.first):
        raise SchemaError(
            f"its values are {foreign}, and not Avro alone: nothing here takes that off; {parameter('framing', NONE)} "
            "keeps them as they are, in the quarantine",
            description.topic,
        )
    return found, certain[0] if certain else Framing()


def restore_schemas(ledger: Ledger, identity: Identity, plans: Sequence[Plan], inspector: Inspector) -> None:
    """Put the schemas of a plan back into the ledger, as far as Kafka has them; only for the holder of the lease.

    Where they are in the keys of records, the ends of all planned ranges are looked at: soon after a schema first
    appeared, a range or a generation often begins.

    Raises FinkDaskError if Kafka does not answer or shows another schema, or one could not be found.
    """
    lost = {}
    for one in known_identities(ledger, identity):
        try:
            ledger.schema(one)
        except LedgerError as error:
            lost[one.schema_sha256] = (one, error)
    if not lost:
        return
    topic = identity.topic
    if identity.schema_source == _OURS:
        ledger.restore_schema(identity, SCHEMA)
        return
    if identity.schema_source != _KEYS:
        schema = parse_schema(inspector.schema(topic, inspector.describe(topic)).text)
        ledger.restore_schema(identity, schema)
        return
    for keys in _keys_of_ranges(inspector, topic, plans):
        for schema in parse_keys(keys):
            if schema.fingerprint in lost:
                ledger.restore_schema(lost.pop(schema.fingerprint)[0], schema)
        if not lost:
            return
    raise next(error for _, error in lost.values())


def _keys_of_ranges(inspector: Inspector, topic: str, plans: Sequence[Plan]) -> Iterator[list[bytes]]:
    """Yield the keys of records at the ends of the ranges, one range of each partition at a time."""
    lows = {partition: marks.low for partition, marks in inspector.describe(topic).watermarks.items()}
    ranges: dict[int, list[Interval]] = {}
    for offset_range in sorted(offset_range for plan in plans for offset_range in plan.ranges):
        start = max(offset_range.start, lows.get(offset_range.partition, offset_range.end))
        if start < offset_range.end:
            ranges.setdefault(offset_range.partition, []).append((start, offset_range.end))
    for turn in range(max(map(len, ranges.values()), default=0)):
        spans = {partition: there[turn] for partition, there in ranges.items() if turn < len(there)}
        yield inspector.sample_keys(topic, spans)


def _more_of(
    settings: TransferSettings,
    inspector: Inspector,
    description: TopicDescription,
    ledger: Ledger,
    before: Identity,
    spans: dict[int, Interval],
) -> FoundSchemas:
    """Find the schemas of a continued dataset whose schemas are in the keys."""
    known = known_versions(ledger, before)
    if settings.schema_file is not None and (chosen := read_schema_file(settings.schema_file)) not in known.schemas:
        return FoundSchemas(Versions((chosen,)), "file")  # which is refused, like any other change of schema
    return _fitted(known, parse_keys(inspector.sample_keys(description.topic, spans)), before)


def _fitted(versions: Versions, sampled: Sequence[AvroSchema], identity: Identity) -> FoundSchemas:
    misfits = []
    for schema in sampled:
        try:
            versions = add_version(versions, identity, _partitioning(identity, versions), schema)
        except SchemaError as error:
            misfits.append(Incompatible(schema, misfit_in_words(schema, error)))
    return FoundSchemas(versions, _KEYS, tuple(misfits))


def _partitioning(identity: Identity, versions: Versions) -> Partitioning:
    try:
        return partitioning_of(identity, versions)
    except SettingsError:
        return Partitioning(())  # a later schema may have the field


def _unplanned(description: TopicDescription, plans: Sequence[Plan]) -> dict[int, Interval]:
    return unplanned(description.watermarks, planned_ends(plans))


def parse_keys(keys: Iterable[bytes]) -> list[AvroSchema]:
    """Read the schemas that keys hold, each once, in order; keys that hold none are left out."""
    found: dict[AvroSchema, None] = {}
    for key in filter(is_schema_like, keys):
        try:
            found[parse_schema(key)] = None
        except SchemaError:
            continue
    return list(found)


@dataclass(frozen=True)
class Target:
    """A topic that can be transferred."""

    #: The topic as it is now.
    description: TopicDescription
    #: What the dataset is or will be made of.
    identity: Identity
    #: The writer schemas, as far as they are known; the first one is the dataset's.
    versions: Versions
    #: What the directories come from.
    partitioning: Partitioning
    #: Writer schemas whose records can't be in the dataset.
    misfits: tuple[Incompatible, ...] = ()

    @property
    def schema(self) -> AvroSchema:
        """The writer schema that the dataset is begun with."""
        return self.versions.first

    @property
    def remark(self) -> str | None:
        """What is done in another way than was asked for, or than is sensible."""
        if self.identity.partitionby_asked is not None:
            return f"the alerts have no {','.join(self.identity.partitionby_asked)}: partitioned by time instead"
        if name := next((each for each in self.identity.partitionby if each.rpartition(".")[2] in IDENTIFIERS), None):
            return (
                f"--partitionby {name} makes nearly as many directories and files as there are alerts, which are slow "
                f"to write and to read, and a range of more than {MAX_KEYS:,} fails: leave it out, as readers find "
                "what they filter by, or give time or a class"
            )
        return None


def inspect_topic(
    settings: TransferSettings,
    inspector: Inspector,
    ledger: Ledger,
    fresh: bool,
    description: TopicDescription | None = None,
) -> Target | None:
    """Check that the topic can be transferred as asked for.

    `ledger`: the ledger to continue, if it has a plan.
    `fresh`: ignore what the ledger holds, as it will be moved aside.
    `description`: the topic as it has just been described; asked for otherwise.
    Returns None for a topic that holds nothing, where there is also nothing to continue.
    Raises FinkDaskError if it can't be transferred, or the ledger is of something else.
    """
    topic = check_topic_name(settings.topic)
    description = description or inspector.describe(topic)
    plans = [] if fresh else ledger.plans()
    before = plans[0].identity if plans else None
    if before is None and _is_empty(description):
        return None
    settings = go_on_with(settings, before)
    survey = settings.survey or survey_of(topic)
    partitionby, outformat = settings.partitionby or (), settings.outformat or OUTFORMATS[0]
    asked = Identity(
        topic=topic,
        topic_id=description.topic_id,
        partitionby=partitionby,
        survey=survey if "time" in partitionby else None,
        schema_sha256="",
        schema_source="",
        columns=canonical_columns(settings.columns),
        where=canonical_condition(settings.where),
        outformat=outformat,
        since=None if settings.since is None else settings.since.utc,
        since_asked=None if settings.since is None or not settings.since.is_relative else settings.since.text,
    )
    if before is not None:
        asked = replace(asked, framing=before.framing)
        found = _find(settings, inspector, description, ledger, plans, asked)
    else:
        found, framing = _find_first(settings, inspector, description, ledger, asked)
        asked = replace(asked, framing=framing.name)
        asked = _by_time_instead(asked, survey, found.versions)
    if outformat in RECORD_OUTFORMATS and (name := found.versions.first.odd_name):
        raise SchemaError(
            f"its schema has the name {name}, which readers of {outformat.capitalize()} files refuse: leave out "
            f"{parameter('outformat', outformat)}, as Parquet takes it, or rename it in the schema",
            topic,
        )
    # With the survey even where no time is read: messages about --partitionby name it.
    partitioning = partitioning_of(replace(asked, survey=survey), found.versions)
    identity = replace(asked, schema_sha256=found.versions.first.fingerprint, schema_source=found.source)
    check_selection(settings, found.versions)
    if before is not None:
        known = replace(before, topic_id=known_topic_id(plans), more_schemas=plans[-1].identity.more_schemas)
        check_same_topic(known, identity)
        identity = known if identity.topic_id == UNKNOWN_ID else replace(known, topic_id=identity.topic_id)
    return Target(description, identity, found.versions, partitioning, found.misfits)


def _by_time_instead(asked: Identity, survey: str | None, versions: Versions) -> Identity:
    """Take the time for a class that the alerts don't have, as Fink's client does: portals print one for every topic.

    Where there is no time either, what was asked for stays, and is refused by its name.
    """
    (name, *more) = asked.partitionby or ("",)
    if name not in _CLASSES or more or field_type(versions.arrow, name) is not None:
        return asked
    instead = replace(asked, partitionby=("time",), survey=survey, partitionby_asked=asked.partitionby)
    try:
        partitioning_of(instead, versions)
    except SettingsError:
        return asked
    return instead


def _is_empty(description: TopicDescription) -> bool:
    """Tell whether a topic holds nothing that is wanted; if it held something of which nothing is left is an error."""
    if description.spans:
        return False
    removed = sum(max(0, min(marks.low, marks.end) - marks.begin) for marks in description.watermarks.values())
    if removed:
        raise BrokerError(
            f"nothing is left of this topic: Kafka's retention has removed {pluralize(removed, 'offset')}, all of it",
            description.topic,
        )
    return True


def check_selection(settings: TransferSettings, versions: Versions) -> None:
    """Refuse columns that the alerts don't have, and a condition that does not fit them.

    Raises SettingsError if there is one; it says which.
    """
    try:
        project(versions.record, settings.columns)
    except SettingsError as error:
        raise SettingsError(f"{parameter('columns')}: {error}") from error
    try:
        if settings.where is not None:
            from fink_dask.where.condition import bind_condition  # here, as it loads the functions of Arrow

            bind_condition(settings.where, versions.arrow)
    except SettingsError as error:
        raise SettingsError(f"{parameter('where')}: {error}") from error
