"""Export datasets as HATS catalogs: one of objects with their light curves, and one of what moves.

A catalog is made in a hidden directory beside it, and then gets its name. Later alerts are added as new versions,
beside those that readers have; then one rename lets them find both.

What is to be on an object store is made in a directory of this host, and sent; what readers open first comes last.
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
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa

from fink_dask.catalog.buckets import Buckets, Shuffled, shuffle
from fink_dask.catalog.form import find_form, left_out
from fink_dask.catalog.gather import FILE_BYTES, Movers, Objects, Rows
from fink_dask.catalog.reading import Reader
from fink_dask.dataset.formats import why_unreadable
from fink_dask.dataset.read import Part, absent_from, open_parts
from fink_dask.errors import LedgerError, SettingsError, StorageError, parameter
from fink_dask.ledger.ledger import storage_error
from fink_dask.ledger.outdir import check_outside
from fink_dask.store.location import store_of

if TYPE_CHECKING:
    from fink_dask.catalog.state import State

#: Where alerts wait, in the directory of the catalog that gets them.
_ASIDE = ".growing"
#: What a thread that writes a file may hold: its rows, the same sorted, and encoded.
THREAD_BYTES = 4 * FILE_BYTES
#: What readers open first, and what an object store has until that is there.
_COLLECTION, _SENDING = "collection.properties", ".sending"
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
    caller = caller or Caller()
    try:
        if not store_of(catalog).renames:
            with TemporaryDirectory(prefix="fink-dask-") as here:
                made = Path(here, catalog.name)
                done = _Export(outdir, made, threads, caller).create(columns, bool(has_history))
                _send(made, catalog, caller)
            return done
        export = _Export(outdir, catalog, threads, caller)
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
    if not store_of(catalog).renames:
        return [catalog / _SENDING] if (catalog / _SENDING).is_file() else []
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
        from fink_dask.catalog.state import State

        parts = open_parts(self._outdir)
        form = find_form([part.dataset.schema for part in parts], columns, has_history)
        name = _NOT_IN_NAMES.sub("_", self._catalog.name)
        whole = self._catalog.with_name(f".{self._catalog.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            whole.mkdir()
            done = self._add(parts, State(name, 0, form, None if columns is None else tuple(columns)), whole)
            if not done.objects and not done.movers:
                raise LedgerError(
                    f"{self._outdir} has no alert with a position: there is nothing to export"
                    f"{absent_from(self._outdir)}"
                )
            whole.rename(self._catalog)
            store_of(self._catalog).sync(self._catalog.parent)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
        return done

    def grow(self, columns: Sequence[str] | None, has_history: bool | None) -> Exported:
        """Add the alerts that the catalog has not got."""
        from fink_dask.catalog.state import read_state, taken_of

        state = read_state(self._catalog)
        if state is None:
            raise SettingsError(
                f"{self._catalog} already exists, and is no catalog of export-hats that could grow: choose another "
                "directory, or remove it"
            )
        for name, asked, has in (
            ("columns", columns and tuple(columns), state.columns),
            ("history", has_history, state.form.has_history),
        ):
            if asked is not None and asked != has:
                raise SettingsError(
                    f"{parameter(name)}: {self._catalog} was begun otherwise, and goes on as it was: leave it out, or "
                    "export to another directory"
                )
        parts = open_parts(self._outdir, lambda identity, marker: taken_of(identity, marker) not in state.taken)
        return self._add(parts, state, self._catalog)

    def _add(self, parts: Sequence[Part], state: State, directory: Path) -> Exported:
        """Write new versions with the alerts of these datasets, and let readers find them."""
        from fink_dask.catalog.state import remove_others

        new = [part for part in parts if part.markers]
        aside, dealt, duplicates = directory / _ASIDE, Shuffled(0, 0, 0), 0
        shutil.rmtree(aside, ignore_errors=True)  # of an export that was killed
        remove_others(directory, state)
        if new:
            try:
                aside.mkdir()
                state, dealt, duplicates = self._write(new, state, directory, aside)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        remove_others(directory, state)
        objects, movers = state.versions
        unknown = (
            ()
            if state.columns
            else tuple(sorted({name for part in new for name in left_out(part.dataset.schema, state.form)}))
        )
        return Exported(
            objects.rows, objects.alerts, movers.rows, dealt.alerts, duplicates, dealt.without_position, unknown
        )

    def _write(self, new: Sequence[Part], state: State, directory: Path, aside: Path) -> tuple[State, Shuffled, int]:
        """Write new versions; returns also how many alerts were left out, as others have their identifiers."""
        from fink_dask.catalog.state import publish, taken_of
        from fink_dask.catalog.version import Writer

        objects, movers = Objects(state.form), Movers(state.form)
        kinds: tuple[Rows, Rows] = (objects, movers)
        readers = [Reader(part, state.form) for part in new]
        alerts, points = (sum(each) for each in zip(*(reader.count() for reader in readers), strict=True))
        duplicates, versions = 0, []
        with ExitStack() as files:
            all_buckets = [
                files.enter_context(Buckets(aside / kind.catalog_type, kind, alerts, points, bool(version.number)))
                for kind, version in zip(kinds, state.versions, strict=True)
            ]
            self._caller.begin("reading alerts", alerts, "alert")
            dealt = shuffle(readers, objects, movers, all_buckets, self._caller.advance)
            for kind, version, place, buckets in zip(
                kinds, state.versions, state.places(directory), all_buckets, strict=True
            ):
                writer = Writer(place, kind, version, aside / f"{kind.catalog_type}-rows", self._threads)
                writer.touch(buckets)
                buckets.close()
                if not len(buckets):
                    versions.append(version)
                    continue
                self._caller.begin("gathering light curves", len(buckets), "file")
                duplicates += writer.gather(buckets, self._caller.advance)
                versions.append(writer.write(self._caller.begin, self._caller.advance))
        taken = {taken_of(part.identity, marker) for part in new for marker in part.markers}
        after = replace(state, number=state.number + 1, taken=state.taken | taken, versions=(versions[0], versions[1]))
        if any(version.number for version in versions):
            publish(directory, after)
        return after, dealt, duplicates


def _check_target(outdir: Path, catalog: Path) -> None:
    if catalog.exists() and not catalog.is_dir():
        raise SettingsError(f"{catalog} already exists, and is no directory: choose another name, or remove it")
    if not store_of(catalog).renames:
        if catalog.exists() and not (catalog / _SENDING).is_file():
            raise SettingsError(
                f"{catalog} already exists, and on an object store no catalog grows: choose another name, or remove it"
            )
    elif not catalog.parent.is_dir():
        raise SettingsError(f"{catalog.parent} is not a directory: make it first")
    check_outside(catalog, outdir)


def _send(made: Path, catalog: Path, caller: Caller) -> None:
    """Send a catalog to an object store, in place of what an export that was killed has left there."""
    from fink_dask.catalog.state import VERSIONS

    # What a catalog notes of itself lets it grow, which takes symbolic links.
    paths = [path for path in made.rglob("*") if path.is_file() and path.relative_to(made).parts[0] != VERSIONS]
    by_directory: dict[Path, list[Path]] = {}
    for path in paths:
        if path.name != _COLLECTION:
            by_directory.setdefault(path.parent, []).append(path)
    first = sorted((path for path in paths if path.name == _COLLECTION), key=lambda path: len(path.parts), reverse=True)
    store, token = store_of(catalog), catalog / _SENDING
    store.replace(token, b"")
    for path in store.files_below(catalog):
        if path != token:
            path.unlink()
    caller.begin("sending the catalog", len(paths), "file")
    for directory, files in by_directory.items():
        store.send(files, catalog / directory.relative_to(made))
        caller.advance(len(files))
    for path in first:  # that of the catalog itself comes last
        store.replace(catalog / path.relative_to(made), path.read_bytes())
        caller.advance(1)
    token.unlink()


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
