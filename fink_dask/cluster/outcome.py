"""What a run has come to."""

from __future__ import annotations

from dataclasses import dataclass

from fink_dask.errors import FinkDaskError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import Summary
from fink_dask.transfers.profile import Profile


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

    Parameters
    ----------
    summary : Summary
        What the dataset holds, and what the run has added.
    profile : Profile
        Where its time went.
    """

    summary: Summary
    profile: Profile


@dataclass(frozen=True)
class TopicOutcome:
    """What a run has come to for one of several topics.

    Parameters
    ----------
    summary : Summary
        What its dataset holds, and what the run has added.
    ledger : Ledger
        Where that is.
    error : FinkDaskError, optional
        Why it has failed.
    """

    summary: Summary
    ledger: Ledger
    error: FinkDaskError | None = None


@dataclass(frozen=True)
class TopicsOutcome:
    """What a run has come to for all its topics.

    Parameters
    ----------
    topics : tuple of TopicOutcome
        Each of them, in the order of their names.
    profile : Profile
        Where the run's time went.
    """

    topics: tuple[TopicOutcome, ...]
    profile: Profile
