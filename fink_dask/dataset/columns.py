"""The columns of a whole dataset: those of every schema that it has taken in."""

from __future__ import annotations

import pyarrow as pa

from fink_dask.avro.evolution import Versions, project
from fink_dask.config import RECORD_OUTFORMATS
from fink_dask.dataset.data_format import KAFKA_FIELDS, RAW_SCHEMA
from fink_dask.dataset.partitioning import Partitioning, resolve_partitioning
from fink_dask.dataset.versions import known_versions
from fink_dask.errors import LedgerError, SettingsError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity


def dataset_schema(ledger: Ledger) -> pa.Schema:
    """Find the columns that the files of a dataset have among them.

    Parameters
    ----------
    ledger : Ledger
        The dataset, with a plan.

    Returns
    -------
    pyarrow.Schema
        The columns of the files, those of Kafka last; a file may lack some that a later schema has added. The partition
        columns are not among them, as they are in the names of the directories.

    Raises
    ------
    LedgerError
        If there is no plan, or a schema of the ledger is missing or damaged.
    """
    plans = ledger.plans()
    if not plans:
        raise LedgerError(f"{ledger.path} holds no plan")
    identity = plans[-1].identity
    versions = known_versions(ledger, identity)
    return file_schema(versions, identity, partitioning_of(identity, versions))


def check_is_parquet(ledger: Ledger, what: str) -> None:
    """Refuse a dataset whose files are not Parquet.

    Parameters
    ----------
    ledger : Ledger
        The dataset, with a plan.
    what : str
        What needs Parquet.

    Raises
    ------
    LedgerError
        If they are not.
    """
    outformat = ledger.plans()[0].identity.outformat
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

    Raises
    ------
    SettingsError
        If there are none; see `resolve_partitioning`.
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
