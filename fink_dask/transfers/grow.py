"""Let the columns of a range's files grow with the schemas that its records turn out to have."""

from __future__ import annotations

from functools import lru_cache

from fink_dask.avro.evolution import Versions
from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.columns import known_versions, planned_versions, take_in
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.errors import LedgerError
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity
from fink_dask.transfers.decode import RangeDecoder


class OutgrownError(Exception):
    """The files of an attempt lack columns; it has to begin again."""


class Grower:
    """Makes the decoders of the attempts at a range.

    The files of a range have the columns of the plan's schemas and of its records' schemas, in the dataset's order.
    Which these are follows from the records and from the ledger, whose verdict on a schema never changes: two attempts
    at a range write the same files.

    Parameters
    ----------
    ledger : Ledger
        The dataset.
    identity : Identity
        That of the plan.
    partitioning : Partitioning
        What the directories come from.
    partition : int
        The range's partition.
    """

    def __init__(self, ledger: Ledger, identity: Identity, partitioning: Partitioning, partition: int) -> None:
        self._ledger = ledger
        self._identity = identity
        self._partitioning = partitioning
        self._partition = partition
        self._versions = _planned(ledger, identity)
        self._decoder: RangeDecoder | None = None

    def decoder(self, attempt: Attempt) -> RangeDecoder:
        """Make the decoder of an attempt."""

        def met(schema: AvroSchema) -> None:
            # Where a job has moved the ledger aside, nothing may be written to the one in its place.
            if not attempt.is_wanted():
                raise LedgerError(f"{self._ledger.path} was removed, or begun again, meanwhile")
            take_in(self._ledger, self._identity, self._partitioning, schema)

        self._decoder = RangeDecoder(self._versions, self._identity, self._partitioning, self._partition, met)
        return self._decoder

    def grow(self) -> None:
        """Add the schemas that the last decoder has met."""
        assert self._decoder is not None
        wanted = {*self._versions.schemas, *self._decoder.met}
        known = known_versions(self._ledger, self._identity)
        self._versions = Versions(tuple(schema for schema in known.schemas if schema in wanted))


@lru_cache(maxsize=8)
def _planned(ledger: Ledger, identity: Identity) -> Versions:
    """Read a plan's schemas from the ledger once per process: they are too large to travel with every range."""
    return planned_versions(ledger, identity)
