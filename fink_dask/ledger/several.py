"""A directory with the datasets of several topics: each in ``OUTDIR/TOPIC``, with its ledger ``OUTDIR/TOPIC.fink``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fink_dask.errors import LedgerError, StorageError
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.progress import State, Summary
from fink_dask.store.durable import directories_in
from fink_dask.units import counted

_SUFFIX = ".fink"
_WORST_FIRST: tuple[State, ...] = ("failed", "interrupted", "partial", "complete")
#: The fields of summaries that are added up.
_COUNTS = (
    "alerts",
    "filtered",
    "quarantined",
    "lost",
    "raw_bytes",
    "written_bytes",
    "files",
    "ranges",
    "run_received_bytes",
    "run_wasted_bytes",
    "run_alerts",
)


def datasets_in(outdir: Path) -> list[Ledger]:
    """List the datasets right below a directory, in the order of their names.

    Raises
    ------
    StorageError
        If the directory can't be read.
    """
    try:
        if not outdir.is_dir():
            return []
        names = [path.name for path in directories_in(outdir) if path.name.endswith(_SUFFIX)]
    except OSError as error:
        raise storage_error(error, outdir) from error
    ledgers = [Ledger(outdir / name.removesuffix(_SUFFIX)) for name in names if name != _SUFFIX]
    return [ledger for ledger in ledgers if ledger.exists()]


def check_for_several(outdir: Path) -> None:
    """Refuse a directory that can't hold the datasets of several topics.

    Raises
    ------
    LedgerError
        If it is a dataset itself.
    """
    if Ledger(outdir).exists():
        raise LedgerError(
            f"{outdir} is the dataset of one topic, and can't hold those of several; choose another --outdir, or give "
            "that one topic alone"
        )


def check_for_one(outdir: Path) -> None:
    """Refuse a directory that holds the datasets of several topics, where one topic is to become a dataset.

    Raises
    ------
    LedgerError
        That names one of them.
    """
    found = datasets_in(outdir)
    if found:
        raise LedgerError(
            f"{outdir} holds a dataset for each of several topics, such as {found[0].outdir.name}; choose another "
            f"--outdir, such as {outdir / 'TOPIC'}, or give a pattern"
        )


def check_name(topic: str) -> None:
    """Refuse a topic whose dataset could be taken for the ledger of another one.

    Raises
    ------
    StorageError
        If it can.
    """
    if _SUFFIX in topic:
        raise StorageError(
            f"its dataset could be taken for a ledger, as its name contains {_SUFFIX}; transfer it on its own"
        )


def total_of(summaries: Sequence[Summary]) -> Summary:
    """Add up the summaries of several topics; the state is the worst one, and the topic how many there are."""
    states = [summary.state for summary in summaries]
    return Summary(
        topic=counted(len(summaries), "topic"),
        state=next((state for state in _WORST_FIRST if state in states), "complete"),
        **{name: sum(getattr(summary, name) for summary in summaries) for name in _COUNTS},
        run_seconds=max((summary.run_seconds for summary in summaries), default=0.0),
    )
