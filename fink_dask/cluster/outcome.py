"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass

from fink_dask.errors import FinkDaskError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.progress import Summary
from fink_dask.transfers.profile import Profile


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    summary : Summary
        What the dataset holds, and what the run added.
    profile : Profile
        Where its time went.
    """

    summary: Summary
    profile: Profile


@dataclass(frozen=True)
class TopicOutcome:
    """How a run ended for one of several topics.

    Parameters
    ----------
    summary : Summary
        What its dataset holds, and what the run added.
    ledger : Ledger
        The dataset's ledger.
    error : FinkDaskError, optional
        Why it failed.
    """

    summary: Summary
    ledger: Ledger
    error: FinkDaskError | None = None


@dataclass(frozen=True)
class TopicsOutcome:
    """How a run ended for all its topics.

    Parameters
    ----------
    topics : tuple of TopicOutcome
        Each of them, by name.
    profile : Profile
        Where the run's time went.
    """

    topics: tuple[TopicOutcome, ...]
    profile: Profile
