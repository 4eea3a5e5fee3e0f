"""What commands on an existing dataset first ask its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fink_dask.kafka.topics import survey_of

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger


def survey_of_dataset(ledger: Ledger) -> str | None:
    """Find the survey, which says where to look up the Kafka servers.

    Raises
    ------
    LedgerError
        If there is no ledger, or it is damaged.
    """
    from fink_dask.ledger.outdir import check_dataset

    check_dataset(ledger)
    identity = ledger.plans()[0].identity
    return identity.survey or survey_of(identity.topic)
