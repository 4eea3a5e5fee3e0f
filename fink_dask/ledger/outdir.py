"""The directories of a dataset and of its ledger: what may be in them, how they are made and removed again.

Those of several topics stand in one directory, each in ``OUTDIR/TOPIC`` with its ledger ``OUTDIR.fink/TOPIC``; until
`gather_ledgers` moves it, a ledger may also be beside its dataset, ``OUTDIR/TOPIC.fink``.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory

from fink_dask.errors import LedgerError, SettingsError, StorageError, parameter
from fink_dask.ledger.lease import check_free, hold_lease, is_held
from fink_dask.ledger.ledger import LEDGER_SUFFIX, Ledger, latest, ledgers_path, storage_error, storage_in_words
from fink_dask.ledger.records import JOINED
from fink_dask.ledger.summary import State, Summary
from fink_dask.store.local import LOCAL, is_finder_file, is_stream, nearest
from fink_dask.store.location import store_of
from fink_dask.units import pluralize

_WORST_FIRST: tuple[State, ...] = ("failed", "interrupted", "partial", "complete")
#: The fields of summaries that are added up.
_COUNTS = (
    "alerts",
    "filtered",
    "duplicates",
    "handed_over",
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

#: What the name of the directory of `parts_of` ends in.
_PARTS = ".topics"


def find_ledger(outdir: Path, joins: bool = False) -> Ledger:
    """Find the ledger of a dataset, or where it is to be: beside the dataset or, of a season's, beside the season.

    `joins`: whether a new dataset is one of several topics.
    Raises SettingsError if there is no place for one.
    """
    if not outdir.name:
        raise SettingsError(f"{outdir} is no place for a dataset: its ledger is to be beside it")
    with storage_in_words(outdir):
        beside = latest(Ledger(outdir))
        of_season = beside.elsewhere
        if of_season is None:
            return beside
        of_season = latest(of_season)
        for is_there in (Ledger.exists, lambda ledger: ledger.path.is_dir()):
            for ledger in (beside, of_season):
                if is_there(ledger):
                    return ledger
    if LEDGER_SUFFIX in outdir.name:  # it could be taken for something else there
        return beside
    return of_season if joins or _of_season(outdir.parent) else beside


def find_datasets(outdir: Path) -> tuple[Ledger, list[Ledger]]:
    """Find a dataset, or those of several topics in one directory; of the latter there are none if it is a dataset.

    Raises LedgerError if the directory is neither.
    """
    ledger = find_ledger(outdir)
    several = [] if ledger.exists() else datasets_in(outdir)
    if not several:
        check_dataset(ledger)
    return ledger, several


def create_ledger(ledger: Ledger) -> list[Path]:
    """Make the directories of a dataset and of its ledger, on one file system.

    Returns: the directories that were not there before, for `remove_if_unused`.
    Raises StorageError if they can't be made, something else is in their place, or they are on two file systems.
    """
    check_outdir(ledger)
    made: list[Path] = []
    try:
        directories = (ledger.outdir, ledger.plans_path, ledger.markers_path, ledger.staging_path)
        for directory in directories:
            made += ledger.store.make_directory(directory)
        # A job that was killed may have made them without bringing them to the disk; from now on they are relied on.
        for directory in (*directories, ledger.path, *directories_above(ledger)):
            ledger.store.sync(directory)
        if not ledger.store.are_together(ledger.outdir, ledger.path):
            raise StorageError(
                f"{ledger.outdir} and its ledger {ledger.path} are on two file systems; "
                f"choose an {parameter('outdir')} below the mount point"
            )
    except OSError as error:
        remove_if_unused(ledger, made)
        raise storage_error(error, ledger.path) from error
    except StorageError:
        remove_if_unused(ledger, made)
        raise
    return made


def directories_above(ledger: Ledger) -> list[Path]:
    """List the directories that have the names of dataset and ledger, and those that a season adds to them."""
    above = [ledger.path.parent, ledger.outdir.parent]
    return list(dict.fromkeys([*above, *(above[1].parent,) * ledger.is_of_season]))


def free_bytes(outdir: Path) -> int | None:
    """Find out how many bytes are free for the files of a dataset that may not be there yet.

    Returns None on an object store, and where the file system does not say. Quotas are not seen.
    """
    return store_of(outdir).free_bytes(outdir)


def remove_if_unused(ledger: Ledger, made: Sequence[Path]) -> None:
    """Remove the directories that `create_ledger` made, where no plan was frozen and nothing is in them."""
    if ledger.exists():
        return
    for directory in reversed(made):
        with suppress(OSError):
            directory.rmdir()


def check_outdir(ledger: Ledger) -> None:
    """Refuse an output directory that neither is nor can become a dataset of fink-dask.

    Raises StorageError if a file is in the way, the directory holds files that no ledger knows, or its name is not
    text.
    """
    try:
        str(ledger.outdir).encode()
    except UnicodeEncodeError:
        raise StorageError(f"{str(ledger.outdir)!a} is not a name in UTF-8: choose another directory") from None
    for path in (ledger.outdir, ledger.path, *ledger.outdir.parents):
        if path.exists() and not path.is_dir():
            raise StorageError(f"{path} is a file, but a directory is needed there")
    for parent in filter(lambda path: path.name, ledger.outdir.parents):
        if parent != ledger.outdir.parent and _of_season(parent):
            raise StorageError(
                f"{ledger.outdir} is inside the datasets of several topics, {parent}, whose readers would take these "
                "alerts for theirs; choose another directory"
            )
        places = (Ledger(parent), Ledger(parent).elsewhere)
        if any(place is not None and latest(place).exists() for place in places):
            raise StorageError(
                f"{ledger.outdir} is inside another dataset, {parent}, whose readers would take these alerts for its "
                "own; choose another directory"
            )
        if _is_ledger(parent):
            raise StorageError(
                f"{ledger.outdir} is inside the ledger of another dataset, {parent}: choose another directory"
            )
    if not ledger.is_of_season and latest(Ledger(ledger.first_path)).exists():
        raise StorageError(
            f"{ledger.path}, where the ledger of {ledger.outdir} belongs, is a dataset itself; choose another name"
        )
    if ledger.compaction_path.exists() and not ledger.exists():
        raise StorageError(unfinished(ledger))
    if not ledger.exists() and ledger.outdir.is_dir() and not all(map(is_finder_file, ledger.outdir.iterdir())):
        raise StorageError(
            f"{ledger.outdir} is not empty and has no ledger {ledger.path}: choose another directory, "
            f"so that what is there is not mixed with the new dataset{_moved_alone(ledger)}"
        )


def check_place(ledger: Ledger) -> None:
    """Find out whether a transfer could begin here, and leave nothing behind.

    Raises LedgerError if another job that is alive works on the ledger.
    Raises StorageError if nothing can be written, or a commit would not be safe.
    """
    check_free(ledger)
    if not ledger.store.renames:
        ledger.store.try_commit(ledger.path / f".trial-{uuid.uuid4().hex}")
        return
    tried: set[Path] = set()
    for path in (ledger.outdir, ledger.path):
        place = nearest(path)
        if place == path and not os.access(place, os.W_OK | os.X_OK):
            raise StorageError(f"can't write to {place}: {os.strerror(errno.EACCES)}")
        if place != path and place not in tried:
            tried.add(place)
            try_place(place)


def try_place(place: Path) -> None:
    """Try what a commit does in a directory that is there, in one that is removed again.

    Raises StorageError if it can't be done.
    """
    try:
        with TemporaryDirectory(prefix=".fink-dask-trial-", dir=place) as scratch:
            store_of(place).try_commit(Path(scratch) / "trial")
    except OSError as error:
        raise StorageError(f"can't write to {place}: {error.strerror}") from error


def check_outside(target: Path, *outdirs: Path) -> None:
    """Refuse to write what is no dataset into one, into a season, or into a ledger; the target is absolute.

    `outdirs`: directories that are one all the same, such as that of datasets whose ledgers are beside each of them.
    """
    for place in filter(lambda path: path.name, (target, *target.parents)):
        if place in outdirs or find_ledger(place).exists() or _of_season(place) or _is_ledger(place):
            raise SettingsError(
                f"{target} is inside {place}, whose readers would take it for alerts: choose another place"
            )


def check_new_file(target: Path, outdir: Path) -> None:
    """Refuse to write a file over another one, where there is no directory, or among the alerts of a dataset."""
    if is_stream(target):
        return
    if target.exists() or target.is_symlink():
        raise SettingsError(f"{target} already exists: choose another name, or remove it")
    if not target.parent.is_dir():
        raise SettingsError(f"{target.parent} is not a directory: make it first")
    check_outside(target.resolve(), outdir.resolve())


def _is_ledger(path: Path) -> bool:
    """Tell whether a directory is the ledger of a dataset, or has those of a season."""
    if path.suffix != LEDGER_SUFFIX:
        return False
    outdir = path.with_suffix("")
    return latest(Ledger(outdir)).exists() or bool(_of_season(outdir))


def check_dataset(ledger: Ledger) -> None:
    """Refuse a directory that is not a dataset of fink-dask.

    Raises LedgerError if it has no ledger with a plan.
    """
    if ledger.compaction_path.exists() and not ledger.exists():
        raise LedgerError(unfinished(ledger))
    if not ledger.exists():
        several = datasets_in(ledger.outdir)
        if several:
            raise LedgerError(
                f"{ledger.outdir} holds datasets of several topics: name one, such as {several[0].outdir}"
            )
        words = f"{ledger.outdir} has no ledger {ledger.path}"
        if beside := dataset_beside(ledger):
            raise LedgerError(f"{words}{beside}")
        if ledger.outdir.is_dir() and any(ledger.outdir.iterdir()):
            raise LedgerError(f"{words}: fink-dask did not write it, or its ledger was removed{_moved_alone(ledger)}")
        raise LedgerError(
            f"{words}, and nothing is in it: check the name; of a topic that is empty, nothing is written"
        )


def _moved_alone(ledger: Ledger) -> str:
    """Say where the ledger belongs, for the end of an error, if a dataset was moved or copied without it."""
    if next(ledger.outdir.rglob("part-*-*-*-*"), None) is None:
        return ""
    words = f"; if the dataset was moved here, its ledger belongs beside it, as {ledger.path.name}"
    return f"{words}; pandas reads it also without"


def dataset_beside(ledger: Ledger) -> str:
    """Name the dataset that the user may have meant, for the end of an error; empty where no name is like it."""
    beside = {each.outdir.name: each for each in datasets_in(ledger.outdir.parent)}
    if ledger.outdir.suffix == ".fink" and ledger.outdir.stem in beside:
        return f"; it is the ledger of {beside[ledger.outdir.stem].outdir}: name that instead"
    near = get_close_matches(ledger.outdir.name, sorted(beside), 1)
    return f"; did you mean {beside[near[0]].outdir}?" if near else ""


def unfinished(ledger: Ledger) -> str:
    """Say that a compaction into a dataset is not complete."""
    if is_held(ledger):
        return f"a compaction into {ledger.outdir} is running: wait until it has ended"
    return (
        f"the compaction into {ledger.outdir} is not complete: the same fink-dask compact goes on with it, or remove "
        f"{ledger.path}"
    )


def datasets_in(outdir: Path) -> list[Ledger]:
    """List the datasets right below a directory, in the order of their names."""
    found = {ledger.outdir.name: ledger for ledger in _of_season(outdir)}
    with storage_in_words(outdir):
        if outdir.is_dir():
            names = [path.name for path in store_of(outdir).directories(outdir) if path.name.endswith(LEDGER_SUFFIX)]
            beside = [Ledger(outdir / name.removesuffix(LEDGER_SUFFIX)) for name in names if name != LEDGER_SUFFIX]
            found |= {ledger.outdir.name: ledger for ledger in map(latest, beside) if ledger.exists()}
    return [found[name] for name in sorted(found)]


def _of_season(outdir: Path) -> list[Ledger]:
    """List the datasets in a directory whose ledgers are beside it."""
    if not outdir.name:  # beside the root of a file system there is nothing
        return []
    with storage_in_words(ledgers_path(outdir)):
        if not ledgers_path(outdir).is_dir():
            return []
        names = [path.name for path in store_of(outdir).directories(ledgers_path(outdir))]
    ledgers = [Ledger(outdir / name, is_of_season=True) for name in names]
    return [ledger for ledger in map(latest, ledgers) if ledger.exists()]


def check_for_several(outdir: Path) -> None:
    """Refuse a directory that can't hold the datasets of several topics.

    Raises LedgerError if it is a dataset itself.
    """
    if latest(Ledger(outdir)).exists():
        raise LedgerError(
            f"{outdir} is the dataset of one topic, and can't hold those of several: choose another directory"
            f"{or_a_season(outdir)}"
        )


def or_a_season(outdir: Path) -> str:
    """Say how a dataset becomes one of several, for the end of what to do otherwise; empty on an object store."""
    if store_of(outdir) is not LOCAL:
        return ""
    moved = f"mkdir nights; mv {outdir.name} {outdir.name}{LEDGER_SUFFIX} nights; fink-dask season nights"
    return f", or move this one to where both can be ({moved}) and give nights"


def check_name(topic: str) -> None:
    """Refuse a topic whose dataset could be taken for the ledger of another one.

    Raises StorageError if it can.
    """
    if LEDGER_SUFFIX in topic:
        raise StorageError(
            f"its dataset could be taken for a ledger, as its name contains {LEDGER_SUFFIX}; transfer it on its own"
        )


def parts_of(outdir: Path) -> Path:
    """Name the directory of the datasets that a joined one is made of, which is beside it."""
    return outdir.with_name(f"{outdir.name}{_PARTS}")


def is_part(outdir: Path) -> bool:
    """Tell whether a joined dataset is made of this one."""
    return outdir.parent.name.endswith(_PARTS)


def check_is_in_kafka(ledger: Ledger, what: str) -> None:
    """Refuse a joined dataset where its alerts are to be compared with Kafka's, or read again.

    Raises LedgerError if it is one.
    """
    if ledger.begun_with().schema_source == JOINED:
        parts = parts_of(ledger.outdir)
        raise LedgerError(
            f"{ledger.outdir} was joined from the datasets in {parts}: {what} each of them; to have a file of the "
            "joined one made again, delete it and run the transfer again"
        )


def total_of(summaries: Sequence[Summary]) -> Summary:
    """Add up the summaries of several topics; the state is the worst one, and the topic how many there are."""
    states = [summary.state for summary in summaries]
    return Summary(
        topic=pluralize(len(summaries), "topic"),
        state=next((state for state in _WORST_FIRST if state in states), "complete"),
        **{name: sum(getattr(summary, name) for summary in summaries) for name in _COUNTS},
        run_seconds=max((summary.run_seconds for summary in summaries), default=0.0),
    )


def gather_ledgers(outdir: Path) -> tuple[list[Ledger], int]:
    """Move the ledgers in a directory to where those of a season are.

    Returns: the datasets in it, and how many ledgers were moved.
    Raises SettingsError if there are no datasets in it.
    Raises LedgerError if a job works on one of them; those before it are moved.
    """
    if find_ledger(outdir).exists():
        raise SettingsError(f"{outdir} is the dataset of one topic, whose ledger is beside it already")
    found = datasets_in(outdir)
    if not found:
        raise SettingsError(f"{outdir} holds no datasets")
    inside = [ledger for ledger in found if not ledger.is_of_season]
    for ledger in inside:
        _move(ledger)
    return datasets_in(outdir), len(inside)


def _move(ledger: Ledger) -> None:
    target = ledger.elsewhere
    if target is None or LEDGER_SUFFIX in ledger.outdir.name:
        raise LedgerError(f"{ledger.outdir} can't be one of a season: its name would be taken for that of a ledger")
    # The lease also refuses where both places have one.
    with hold_lease(ledger), storage_in_words(target.path):
        ledger.store.make_directory(target.path.parent)
        if target.path.is_dir():
            target.path.rmdir()  # of a transfer that was refused; with anything in it, this fails
        ledger.path.rename(target.path)
        for directory in (target.path.parent, ledger.path.parent):
            ledger.store.sync(directory)
