"""Export datasets as HATS catalogs: one of objects with their light curves, and one of what moves.

A catalog is made in a hidden directory beside it, and then gets its name. Later alerts are added as a new version,
beside the one that readers have; then one rename lets them find it.
"""

from __future__ import annotations

import fcntl
import glob
import importlib.util
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from fink_dask.catalog.buckets import Buckets, Dealt, deal
from fink_dask.catalog.form import Form, find_form, left_out
from fink_dask.catalog.gather import FILE_BYTES, Movers, Objects, Rows
from fink_dask.catalog.reading import Reader
from fink_dask.dataset.formats import why_unreadable
from fink_dask.dataset.read import Part, open_parts
from fink_dask.errors import LedgerError, SettingsError, StorageError, parameter
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.outdir import find_ledger
from fink_dask.store.durable import sync_directory

if TYPE_CHECKING:
    from fink_dask.catalog.state import State
    from fink_dask.catalog.version import Place

#: The catalog of alerts that belong to no object, in the directory of the one of objects.
MOVERS = "movers"
#: Where alerts wait, in the directory of the catalog that gets them.
_ASIDE = ".growing"
#: What a thread that writes a file may hold: its rows, the same sorted, and encoded.
THREAD_BYTES = 4 * FILE_BYTES
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Exported:
    """What is in a catalog, and what became of the alerts that were added to it."""

    #: objects, alerts, movers: objects, alerts in their light curves, and alerts of no object, which are in a catalog
    #: of their own.
    objects: int
    alerts: int
    movers: int
    #: Alerts that were read now.
    added: int
    #: Alerts left out because another with the same identifier is there.
    duplicates: int
    #: Alerts left out because they have no position.
    without_position: int
    #: Columns that new alerts have, and the catalog has not, as it was begun without them.
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Caller:
    """Whom an export tells how far it is."""

    #: Called with the name of a stage, its number of steps, and what these are.
    begin: Callable[[str, int, str], None] = lambda *_: None
    #: Called with the number of steps done.
    advance: Callable[[int], None] = lambda _: None


def export_hats(
    outdir: Path,
    catalog: Path,
    columns: Sequence[str] | None = None,
    has_history: bool | None = None,
    threads: int = 1,
    caller: Caller | None = None,
) -> Exported:
    """Write a catalog of the objects of a dataset, which appears whole or not at all, or add what is new to it.

    `outdir`: the dataset, or a directory with those of several topics; it is only read.
    `catalog`: the catalog's directory. One that is there grows: it gets the alerts that it has not got yet.
    `columns`: the columns of the light curves; by default every one that is a single value, or those that it was begun
    with.
    `has_history`: whether light curves have earlier detections and forced photometry; by default no, or as it was
    begun.
    `threads`: how many files of the catalog to write at once.
    `caller`: whom to tell how far it is.
    Raises SettingsError if hats is not installed, the catalog can't be there, or the alerts lack what a catalog needs;
    if the catalog was begun with other columns.
    Raises LedgerError if the dataset is not what its ledger says, or has no alert for a catalog.
    Raises StorageError if the file system refuses, or the catalog is just being written by another export.
    """
    if importlib.util.find_spec("hats") is None:
        raise SettingsError("export-hats needs hats, which is not installed: pip install 'fink-dask[hats]'")
    _check_target(outdir, catalog)
    export = _Export(outdir, catalog, threads, caller or Caller())
    try:
        if catalog.exists():
            with _locked(catalog):
                return export.grow(columns, has_history)
        return export.create(columns, bool(has_history))
    except OSError as error:
        raise storage_error(error, catalog) from error
    except pa.ArrowException as error:
        raise LedgerError(f"{outdir} can't be read: {why_unreadable(error)}") from error


def unfinished(catalog: Path) -> list[Path]:
    """List what other exports to the same place have left there: they were killed, or are still running."""
    return sorted(catalog.parent.glob(f".{glob.escape(catalog.name)}.*.part"))


class _Export:
    """One run of an export."""

    def __init__(self, outdir: Path, catalog: Path, threads: int, caller: Caller) -> None:
        self._outdir = outdir
        self._catalog = catalog
        self._threads = threads
        self._caller = caller

    def create(self, columns: Sequence[str] | None, has_history: bool) -> Exported:
        """Make a catalog."""
        parts = open_parts(self._outdir)
        form = find_form([part.dataset.schema for part in parts], columns, has_history)
        whole = self._catalog.with_name(f".{self._catalog.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            whole.mkdir()
            done = self._add(parts, form, None if columns is None else tuple(columns), whole)
            if not done.objects and not done.movers:
                raise LedgerError(f"{self._outdir} has no alert with a position: there is nothing to export")
            whole.rename(self._catalog)
            sync_directory(self._catalog.parent)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
        return done

    def grow(self, columns: Sequence[str] | None, has_history: bool | None) -> Exported:
        """Add the alerts that the catalog has not got."""
        from fink_dask.catalog.state import taken_of

        states = [state for _, state in self._found(self._catalog) if state is not None]
        if not states:
            raise SettingsError(
                f"{self._catalog} already exists, and is no catalog of export-hats that could grow: choose another "
                "directory, or remove it"
            )
        form, begun = states[0].form, states[0].columns
        for name, asked, has in (
            ("columns", columns and tuple(columns), begun),
            ("history", has_history, form.has_history),
        ):
            if asked is not None and asked != has:
                raise SettingsError(
                    f"{parameter(name)}: {self._catalog} was begun otherwise, and goes on as it was: leave it out, or "
                    "export to another directory"
                )
        taken = frozenset.intersection(*(state.taken for state in states))
        parts = open_parts(self._outdir, lambda identity, marker: taken_of(identity, marker) not in taken)
        return self._add(parts, form, begun, self._catalog)

    def _add(self, parts: Sequence[Part], form: Form, columns: tuple[str, ...] | None, directory: Path) -> Exported:
        """Write new versions with the alerts of these datasets, and let readers find them."""
        from fink_dask.catalog.state import remove_others

        new = [part for part in parts if part.markers]
        aside, dealt, duplicates = directory / _ASIDE, Dealt(0, 0, 0), 0
        shutil.rmtree(aside, ignore_errors=True)  # of an export that was killed
        remove_others(self._found(directory))
        if new:
            try:
                aside.mkdir()
                dealt, duplicates = self._write(new, form, columns, directory, aside)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        found = self._found(directory)
        remove_others(found)
        rows, alerts = [0, 0], [0, 0]
        for number, (_, state) in enumerate(found):
            if state is not None:
                rows[number], alerts[number] = state.version.rows, state.version.alerts
        unknown = (
            tuple(sorted({name for part in new for name in left_out(part.dataset.schema, form)})) if not columns else ()
        )
        return Exported(rows[0], alerts[0], rows[1], dealt.alerts, duplicates, dealt.without_position, unknown)

    def _write(
        self, new: Sequence[Part], form: Form, columns: tuple[str, ...] | None, directory: Path, aside: Path
    ) -> tuple[Dealt, int]:
        """Write new versions; returns also how many alerts were left out, as others have their identifiers."""
        from fink_dask.catalog.state import State, publish, taken_of
        from fink_dask.catalog.version import Version, Writer

        found = self._found(directory)
        objects, movers = Objects(form), Movers(form)
        kinds: tuple[Rows, Rows] = (objects, movers)
        taken = {taken_of(part.identity, marker) for part in new for marker in part.markers}
        taken.update(one for _, state in found if state is not None for one in state.taken)
        readers = [Reader(part, form) for part in new]
        alerts, points = (sum(each) for each in zip(*(reader.count() for reader in readers), strict=True))
        duplicates, changed = 0, []
        with ExitStack() as files:
            all_buckets = [
                files.enter_context(Buckets(aside / kind.catalog_type, kind, alerts, points, state is not None))
                for kind, (_, state) in zip(kinds, found, strict=True)
            ]
            self._caller.begin("reading alerts", alerts, "alert")
            dealt = deal(readers, objects, movers, all_buckets, self._caller.advance)
            for kind, (place, state), buckets in zip(kinds, found, all_buckets, strict=True):
                version = Version(0) if state is None else state.version
                writer = Writer(place, kind, version, aside / f"{kind.catalog_type}-rows", self._threads)
                writer.touch(buckets)
                buckets.close()
                if len(buckets):
                    self._caller.begin("gathering light curves", len(buckets), "file")
                    duplicates += writer.gather(buckets, self._caller.advance)
                    version = writer.write(self._caller.begin, self._caller.advance)
                if version.number:
                    changed.append((place, state, State(form, columns, frozenset(taken), version)))
        # One that readers do not know yet comes first: were it to be missing, nobody would know what it lacks.
        for place, before, after in sorted(changed, key=lambda each: each[1] is not None):
            publish(place, before, after)
        return dealt, duplicates

    def _found(self, directory: Path) -> list[tuple[Place, State | None]]:
        """Find the two catalogs, as far as they are there."""
        from fink_dask.catalog.state import find_place, read_state

        name = _NOT_IN_NAMES.sub("_", self._catalog.name)
        places = (find_place(directory, name), find_place(directory / MOVERS, f"{name}_{MOVERS}"))
        return [(place, read_state(place)) for place in places]


def _check_target(outdir: Path, catalog: Path) -> None:
    if catalog.exists() and not catalog.is_dir():
        raise SettingsError(f"{catalog} already exists, and is no directory: choose another name, or remove it")
    if not catalog.parent.is_dir():
        raise SettingsError(f"{catalog.parent} is not a directory: make it first")
    for place in (outdir, Ledger(outdir).path, find_ledger(outdir).path):
        if place in (catalog, *catalog.parents):
            raise SettingsError(f"{catalog} is inside {place}, whose readers would take it for alerts: choose another")


@contextmanager
def _locked(catalog: Path) -> Iterator[None]:
    """Keep other exports away from a catalog that grows; the lock ends with the process, however that ends."""
    descriptor = os.open(catalog, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(
            f"{catalog} is just being written by another export-hats: wait until it has ended"
        ) from error
    else:
        yield
    finally:
        os.close(descriptor)
