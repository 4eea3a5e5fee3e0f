"""The columns of a dataset, and the writer schemas that it has taken in: an ordered list that only grows.

Whoever meets a schema takes it in, a job before it plans as well as a range that reads a record of it. A number is
taken by linking, so that of two schemas which don't fit each other one comes first, and the other one is refused from
then on. What was once said of a schema, that it was taken in or why it can't be, therefore stays true, and a second
attempt at a range decides as the first one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from fink_dask.avro.evolution import Versions, project
from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.formats import KAFKA_FIELDS, RAW_SCHEMA
from fink_dask.dataset.partitioning import Partitioning, resolve_partitioning
from fink_dask.errors import LedgerError, SchemaError, SettingsError
from fink_dask.ledger.ledger import Ledger, storage_error, storage_in_words
from fink_dask.ledger.records import Identity, Plan, seal, unseal
from fink_dask.settings import RECORD_OUTFORMATS

#: The first schema has number 1, and is named by every plan.
_FIRST_NUMBER = 2


def planned_versions(ledger: Ledger, identity: Identity) -> Versions:
    """Read the schemas that a plan was made with.

    Raises LedgerError if one is missing or not what was written.
    """
    return _read(ledger, identity.each_schema)


def known_versions(ledger: Ledger, identity: Identity) -> Versions:
    """Read the schemas that a plan was made with, and those that were taken in since.

    Raises LedgerError if one is missing or not what was written.
    """
    return _read(ledger, known_identities(ledger, identity))


def known_identities(ledger: Ledger, identity: Identity) -> tuple[Identity, ...]:
    """Name the schemas of `known_versions`, each as the only one of an identity."""
    return _identities(identity, _taken(ledger))


def add_version(known: Versions, identity: Identity, partitioning: Partitioning, schema: AvroSchema) -> Versions:
    """Add a schema to those that a dataset has, or say in words that it does not fit.

    Raises SchemaError if it does not fit.
    """
    if identity.outformat in RECORD_OUTFORMATS and schema not in known.schemas:
        raise SchemaError(f"{identity.outformat.capitalize()} files have one schema, and this is another one")
    # Such a column would vanish behind the directories of the other field.
    taken = [source.columns[0] for source in partitioning.sources if "." in source.path and source.scale is None]
    for name in taken:
        if name in schema.parsed.names:
            raise SchemaError(f"field {name} has the name of a partition column")
    return known.plus(schema)


def register(ledger: Ledger, identity: Identity, partitioning: Partitioning, schema: AvroSchema) -> None:
    """Take in a schema, durably, unless the dataset has it.

    `identity`: that of a plan, or of one that is about to be frozen and whose first schema is in the ledger.
    Raises SchemaError if it does not fit those that are there.
    """
    while True:
        # A single look, so that the number is free only if no schema has come that is not among the known ones.
        taken = _taken(ledger)
        known = _read(ledger, _identities(identity, taken))
        if schema in known.schemas:
            _sync(ledger)
            return
        add_version(known, identity, partitioning, schema)
        path = _path(ledger, len(taken) + _FIRST_NUMBER)
        alone = replace(identity, schema_sha256=schema.fingerprint, more_schemas=())
        try:
            ledger.store.make_directory(path.parent)
            # Before its number: whoever finds the number reads the schema.
            ledger.store.put_new(ledger.schema_path(alone), schema.text.encode())
            ledger.schema(alone)
            # Where another one has this number now, it is among the known ones the next time.
            ledger.store.put_new(path, seal("version", {"schema_sha256": schema.fingerprint}))
        except OSError as error:
            raise storage_error(error, path) from error
        except LedgerError as error:
            raise SchemaError(f"the ledger holds something else under its name: {error}") from error


def reconcile_versions(
    ledger: Ledger, identity: Identity, partitioning: Partitioning, versions: Versions, is_first: bool
) -> Identity:
    """Take in what was found before a plan is frozen; returns the identity that names all schemas of the dataset.

    `is_first`: nothing was planned yet: what a job left behind that was killed before its first plan does not count.
    Raises FinkDaskError if the ledger is damaged, or the file system refuses.
    """
    with storage_in_words(ledger.path):
        if is_first:
            ledger.store.remove_tree(_directory(ledger))
        if len(versions.schemas) > 1:
            ledger.store.put_new(ledger.schema_path(identity), versions.first.text.encode())
    for schema in versions.schemas[1:]:
        try:
            register(ledger, identity, partitioning, schema)
        except SchemaError:
            continue  # a range has met another one first, which it does not fit
    names = [one.schema_sha256 for one in known_identities(ledger, identity)]
    return replace(identity, more_schemas=tuple(names[1:]))


def check_schemas(ledger: Ledger, plans: Sequence[Plan]) -> tuple[str, ...]:
    """Say what is wrong with the schemas that the ledger keeps, a line each."""
    problems: dict[str, None] = {}
    for identity in dict.fromkeys(plan.identity for plan in plans):
        try:
            names = known_identities(ledger, identity)
        except LedgerError as error:
            problems[str(error)] = None
            names = identity.each_schema
        for one in names:
            try:
                ledger.schema(one)
            except LedgerError as error:
                problems[str(error)] = None
    return tuple(problems)


def mend_versions(ledger: Ledger, plans: Sequence[Plan]) -> None:
    """Write the list of schemas again as far as the plans name them; only the holder of the lease may."""
    _write_list(ledger, plans[-1].identity.more_schemas)


def copy_versions(source: Ledger, target: Ledger, identity: Identity) -> None:
    """Give a ledger that is being made all schemas that another one has, durably.

    Raises LedgerError if one is missing or damaged.
    """
    known = known_identities(source, identity)
    for one in known:
        target.restore_schema(one, source.schema(one))
    _write_list(target, [one.schema_sha256 for one in known[1:]])


def _write_list(ledger: Ledger, names: Sequence[str]) -> None:
    """Write the list of schemas, the first one of which has no number."""
    for number, name in enumerate(names, _FIRST_NUMBER):
        path, content = _path(ledger, number), seal("version", {"schema_sha256": name})
        with storage_in_words(path):
            if path.exists() and path.read_bytes() == content:
                continue
            ledger.store.make_directory(path.parent)
            ledger.store.replace(path, content)


def _read(ledger: Ledger, identities: Sequence[Identity]) -> Versions:
    return Versions(tuple(map(ledger.schema, identities)))


def _identities(identity: Identity, taken: Sequence[str]) -> tuple[Identity, ...]:
    more = dict.fromkeys((*identity.more_schemas, *taken))
    more.pop(identity.schema_sha256, None)
    return replace(identity, more_schemas=tuple(more)).each_schema


def _taken(ledger: Ledger) -> list[str]:
    """Read the fingerprints of the schemas that were taken in, in order."""
    found: list[str] = []
    while (path := _path(ledger, len(found) + _FIRST_NUMBER)).exists():
        try:
            found.append(str(unseal("version", path)["schema_sha256"]))
        except KeyError as error:
            raise LedgerError(f"{path} names no schema") from error
        except OSError as error:
            raise storage_error(error, path) from error
    return found


def _sync(ledger: Ledger) -> None:
    """Bring the list to the disk, also what others have written to it: files are about to rely on it."""
    with storage_in_words(_directory(ledger)):
        if _directory(ledger).is_dir():
            ledger.store.sync(_directory(ledger))


def _directory(ledger: Ledger) -> Path:
    return ledger.path / "versions"


def _path(ledger: Ledger, number: int) -> Path:
    return _directory(ledger) / f"{number:08d}.json"


def dataset_schema(ledger: Ledger) -> pa.Schema:
    """Find the columns that the files of a dataset have among them.

    Returns: the columns of the files, those of Kafka last; a file may lack some that a later schema has added. The
    partition columns are not among them, as they are in the names of the directories.
    Raises LedgerError if there is no plan, or a schema of the ledger is missing or damaged.
    """
    plans = ledger.plans()
    if not plans:
        raise LedgerError(f"{ledger.path} holds no plan")
    identity = plans[-1].identity
    versions = known_versions(ledger, identity)
    return file_schema(versions, identity, partitioning_of(identity, versions))


def check_is_parquet(ledger: Ledger, what: str) -> None:
    """Refuse a dataset whose files are not Parquet.

    Raises LedgerError if they are not.
    """
    outformat = ledger.begun_with().outformat
    if outformat != "parquet":
        raise LedgerError(
            f"the files in {ledger.outdir} are {outformat.capitalize()} files, but {what} needs Parquet: "
            "transfer the topic once more, into Parquet"
        )


def file_schema(versions: Versions, identity: Identity, partitioning: Partitioning) -> pa.Schema:
    """Return the columns of files that hold records of these schemas."""
    if identity.outformat in RECORD_OUTFORMATS:
        return RAW_SCHEMA
    columns = project(versions.record, identity.columns).arrow_fields
    return partitioning.file_schema(pa.schema([*columns, *KAFKA_FIELDS]))


def partitioning_of(identity: Identity, versions: Versions) -> Partitioning:
    """Find the fields that the partition columns come from, in the first schemas that have them.

    What a later schema adds never changes what the directories of a dataset mean.

    Raises SettingsError if there are none; see `resolve_partitioning`.
    """
    first_error: SettingsError | None = None
    for count in range(1, len(versions.schemas) + 1):
        try:
            arrow = Versions(versions.schemas[:count]).arrow
            return resolve_partitioning(identity.partitionby, identity.survey, arrow)
        except SettingsError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error
