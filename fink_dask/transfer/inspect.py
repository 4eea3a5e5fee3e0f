"""Find out what is to be transferred, and whether it can be: reads Kafka and the ledger, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fink_dask.avro.projection import project
from fink_dask.avro.schema import AvroSchema, parse_schema, read_schema_file
from fink_dask.config import TransferSettings
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.partitioning import Partitioning, resolve_partitioning
from fink_dask.dataset.records import Identity
from fink_dask.errors import BrokerError, SchemaError, SettingsError
from fink_dask.kafka.describe import UNKNOWN_ID, Inspector, TopicDescription, TopicSchema
from fink_dask.kafka.topics import check_topic_name, survey_of
from fink_dask.transfer.plan import check_identity, known_topic_id


@dataclass(frozen=True)
class Target:
    """A topic that can be transferred.

    Parameters
    ----------
    description : TopicDescription
        The topic as it is now.
    identity : Identity
        What the dataset is or will be made of.
    schema : AvroSchema
        The writer schema.
    partitioning : Partitioning
        What the directories come from.
    """

    description: TopicDescription
    identity: Identity
    schema: AvroSchema
    partitioning: Partitioning


def inspect_topic(settings: TransferSettings, inspector: Inspector, ledger: Ledger, fresh: bool) -> Target | None:
    """Check that the topic can be transferred as asked for.

    Parameters
    ----------
    settings : TransferSettings
        What is asked for.
    inspector : Inspector
        Asks the broker.
    ledger : Ledger
        The ledger to continue, if it has a plan.
    fresh : bool
        Leave out of account what the ledger holds, as it will be moved aside.

    Returns
    -------
    Target or None
        None for a topic that holds nothing, where there is nothing to continue either.

    Raises
    ------
    FinkDaskError
        If it can't be transferred, or the ledger is of something else.
    """
    topic = check_topic_name(settings.topic)
    description = inspector.describe(topic)
    plans = [] if fresh else ledger.plans()
    before = plans[0].identity if plans else None
    if before is None and _is_empty(description):
        return None
    schema, source = _schema(settings, inspector, description, ledger, before)
    survey = settings.survey or survey_of(topic)
    partitioning = resolve_partitioning(settings.partitionby, survey, schema.arrow)
    identity = Identity(
        topic=topic,
        topic_id=description.topic_id,
        partitionby=settings.partitionby,
        survey=survey if "time" in settings.partitionby else None,
        schema_sha256=schema.fingerprint,
        schema_source=source,
        columns=_check_columns(settings, schema),
    )
    if before is not None:
        known = replace(before, topic_id=known_topic_id(plans))
        check_identity(known, identity)
        identity = known if identity.topic_id == UNKNOWN_ID else replace(known, topic_id=identity.topic_id)
    return Target(description, identity, schema, partitioning)


def _is_empty(description: TopicDescription) -> bool:
    """Tell whether a topic holds nothing; one that held something, of which nothing is left, is an error."""
    if any(marks.low < marks.stable for marks in description.watermarks.values()):
        return False
    removed = sum(marks.stable for marks in description.watermarks.values())
    if removed:
        raise BrokerError(
            f"nothing is left of this topic: Kafka's retention has removed all of its {removed:,} offsets",
            description.topic,
        )
    return True


def _check_columns(settings: TransferSettings, schema: AvroSchema) -> tuple[str, ...] | None:
    try:
        project(schema.parsed, settings.columns)
    except SettingsError as error:
        raise SettingsError(f"--columns: {error}") from error
    # The order is the schema's, whatever was typed.
    return None if settings.columns is None else tuple(sorted(settings.columns))


def _schema(
    settings: TransferSettings,
    inspector: Inspector,
    description: TopicDescription,
    ledger: Ledger,
    before: Identity | None,
) -> tuple[AvroSchema, str]:
    """Find the writer schema: the user's file, else Kafka's, else, as Kafka keeps it for days only, the ledger's."""
    if settings.schema_file is not None:
        return read_schema_file(settings.schema_file), "file"
    try:
        found: TopicSchema = inspector.schema(description.topic, description)
    except SchemaError:
        if before is None:
            raise
        return ledger.schema(before), before.schema_source
    return parse_schema(found.text), found.source
