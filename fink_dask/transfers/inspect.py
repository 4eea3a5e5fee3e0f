"""Find out what is to be transferred, and whether it can be; read Kafka and the ledger, and write nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fink_dask.avro.evolution import Versions, project
from fink_dask.avro.schema import AvroSchema
from fink_dask.config import TransferSettings
from fink_dask.dataset.columns import partitioning_of
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.errors import BrokerError, SettingsError
from fink_dask.kafka.inspect import UNKNOWN_ID, Inspector, TopicDescription
from fink_dask.kafka.topics import check_topic_name, survey_of
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity
from fink_dask.transfers.plan import check_identity, known_topic_id
from fink_dask.transfers.schemas import Misfit, find_schemas
from fink_dask.units import counted
from fink_dask.where.condition import bind_condition
from fink_dask.where.language import parse_condition


@dataclass(frozen=True)
class Target:
    """A topic that can be transferred.

    Parameters
    ----------
    description : TopicDescription
        The topic as it is now.
    identity : Identity
        What the dataset is or will be made of.
    versions : Versions
        The writer schemas, as far as they are known; the first one is the dataset's.
    partitioning : Partitioning
        What the directories come from.
    misfits : tuple of Misfit
        Writer schemas whose records can't be in the dataset.
    """

    description: TopicDescription
    identity: Identity
    versions: Versions
    partitioning: Partitioning
    misfits: tuple[Misfit, ...] = ()

    @property
    def schema(self) -> AvroSchema:
        """The writer schema that the dataset is begun with."""
        return self.versions.first


def inspect_topic(
    settings: TransferSettings,
    inspector: Inspector,
    ledger: Ledger,
    fresh: bool,
    description: TopicDescription | None = None,
) -> Target | None:
    """Check that the topic can be transferred as asked for.

    Parameters
    ----------
    settings : TransferSettings
        What was asked for.
    inspector : Inspector
        Asks the broker.
    ledger : Ledger
        The ledger to continue, if it has a plan.
    fresh : bool
        Ignore what the ledger holds, as it will be moved aside.
    description : TopicDescription, optional
        The topic as it has just been described; asked for otherwise.

    Returns
    -------
    Target or None
        None for a topic that holds nothing, where there is also nothing to continue.

    Raises
    ------
    FinkDaskError
        If it can't be transferred, or the ledger is of something else.
    """
    topic = check_topic_name(settings.topic)
    description = description or inspector.describe(topic)
    plans = [] if fresh else ledger.plans()
    before = plans[0].identity if plans else None
    if before is None and _is_empty(description):
        return None
    survey = settings.survey or survey_of(topic)
    asked = Identity(
        topic=topic,
        topic_id=description.topic_id,
        partitionby=settings.partitionby,
        survey=survey if "time" in settings.partitionby else None,
        schema_sha256="",
        schema_source="",
        columns=None if settings.columns is None else tuple(sorted(settings.columns)),
        where=canonical_condition(settings.where),
        outformat=settings.outformat,
    )
    found = find_schemas(settings, inspector, description, ledger, plans, asked)
    # With the survey even where no time is read: messages about --partitionby name it.
    partitioning = partitioning_of(replace(asked, survey=survey), found.versions)
    identity = replace(asked, schema_sha256=found.versions.first.fingerprint, schema_source=found.source)
    check_selection(settings, found.versions)
    if before is not None:
        known = replace(before, topic_id=known_topic_id(plans), more_schemas=plans[-1].identity.more_schemas)
        check_identity(known, identity)
        identity = known if identity.topic_id == UNKNOWN_ID else replace(known, topic_id=identity.topic_id)
    return Target(description, identity, found.versions, partitioning, found.misfits)


def _is_empty(description: TopicDescription) -> bool:
    """Tell whether a topic holds nothing; one that held something of which nothing is left is an error."""
    if any(marks.low < marks.stable for marks in description.watermarks.values()):
        return False
    removed = sum(marks.stable for marks in description.watermarks.values())
    if removed:
        raise BrokerError(
            f"nothing is left of this topic: Kafka's retention has removed {counted(removed, 'offset')}, all of it",
            description.topic,
        )
    return True


def canonical_condition(where: str | None) -> str | None:
    """Bring a condition into the one form that it has in a ledger.

    Raises
    ------
    SettingsError
        If it is not a condition.
    """
    if where is None:
        return None
    try:
        return str(parse_condition(where))
    except SettingsError as error:
        raise SettingsError(f"--where: {error}") from error


def check_selection(settings: TransferSettings, versions: Versions) -> None:
    """Refuse columns that the alerts don't have, and a condition that does not fit them.

    Raises
    ------
    SettingsError
        If there is one; it says which.
    """
    try:
        project(versions.record, settings.columns)
    except SettingsError as error:
        raise SettingsError(f"--columns: {error}") from error
    try:
        if settings.where is not None:
            bind_condition(settings.where, versions.arrow)
    except SettingsError as error:
        raise SettingsError(f"--where: {error}") from error
