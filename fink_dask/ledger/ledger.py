"""The ledger: the plan and the commit markers, in ``OUTDIR.fink/`` beside the dataset.

That of a topic of a season, ``OUTDIR/TOPIC``, is in ``OUTDIR.fink/TOPIC/``, so that nothing but alerts is below OUTDIR.

::

    OUTDIR.fink/
      schema-<fingerprint>.avsc          a writer schema
      versions/00000002.json             which writer schema was taken in second, and so on
      plans/00000001.json                a generation of the plan, written before its first byte is consumed
      markers/<range>.json               a committed range: the only commit point
      markers/<range>.<revision>.json    the same range, after a repair or a retry of its quarantine
      staging/<plan>/<range>-<attempt>/  what is not yet the dataset
      quarantine/<file>.parquet          records that can't be decoded
      profiles/00000001.json             where the time of a run went
      compaction.json                    what the dataset was compacted from, if it was
      again/<number>/                    the ledger since the dataset was begun again, on an object store
      lease-<number>.json                the job that works on it
"""

from __future__ import annotations

import errno
import gc
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.errors import LedgerError, SchemaError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import DamagedMarker, Identity, Marker, Plan, UnknownFormatError, opened, seal, unseal
from fink_dask.ledger.usual import usual_marker
from fink_dask.store.local import nearest
from fink_dask.store.location import store_of
from fink_dask.store.store import Store

#: Schemas that are kept in memory once they are parsed.
_SCHEMAS = 32
#: What the name of a ledger ends in.
LEDGER_SUFFIX = ".fink"
#: The directory below the ledger that holds quarantine files.
QUARANTINE_DIRECTORY = "quarantine"
#: The names of plans, but not of files such as ``._00000001.json`` that macOS may put beside them.
_PLANS = "[0-9]*.json"
_MENDS = ": fink-dask repair fetches it again"
#: The name of a ledger with which a dataset was begun again.
_AGAIN = re.compile(r"\d{8}")
#: Markers that were read, by the name of their file: none of them ever changes.
KnownMarkers = dict[str, Marker]
#: What ranges are sorted by; comparing them as a whole takes four times as long.
_PLACE = attrgetter("partition", "start")
#: The name of a marker that is not the first of its range.
_REVISION = re.compile(r"([0-9-]+)\.([1-9][0-9]{0,5})\.json")


@dataclass(frozen=True)
class Ledger:
    """A dataset and its ledger."""

    outdir: Path
    #: Whether the ledger is with those of the other topics of a season; see `fink_dask.ledger.outdir.find_ledger`.
    is_of_season: bool = False
    #: How often the dataset was begun again on an object store; each time with a ledger of its own, see `latest`.
    number: int = 0

    @property
    def store(self) -> Store:
        """What both are on."""
        return store_of(self.outdir)

    @property
    def path(self) -> Path:
        """The ledger's directory, on the dataset's file system so that files can be renamed from it."""
        return self.again_path / f"{self.number:08d}" if self.number else self.first_path

    @property
    def first_path(self) -> Path:
        """Where it is until the dataset is begun again on an object store."""
        if self.is_of_season:
            return ledgers_path(self.outdir.parent) / self.outdir.name
        return ledgers_path(self.outdir)

    @property
    def again_path(self) -> Path:
        """Where the ledgers are of datasets on an object store that were begun again."""
        return self.first_path / "again"

    @property
    def elsewhere(self) -> Ledger | None:
        """The other place where a ledger of this dataset may be; None if no directory is around it."""
        above = self.outdir.parents
        return Ledger(self.outdir, not self.is_of_season) if above and above[0].name else None

    @property
    def plans_path(self) -> Path:
        """Where the generations of the plan are."""
        return self.path / "plans"

    @property
    def markers_path(self) -> Path:
        """Where the commit markers are."""
        return self.path / "markers"

    @property
    def staging_path(self) -> Path:
        """Where attempts stage their files, in a directory for each plan."""
        return self.path / "staging"

    @property
    def quarantine_path(self) -> Path:
        """Where the records are that can't be decoded."""
        return self.path / QUARANTINE_DIRECTORY

    @property
    def compaction_path(self) -> Path:
        """What the dataset is compacted from; without a plan beside it, the compaction is not complete yet."""
        return self.path / "compaction.json"

    @property
    def profiles_path(self) -> Path:
        """Where the profiles of the runs are."""
        return self.path / "profiles"

    def attempt_path(self, plan_id: str, offset_range: OffsetRange, attempt: str) -> Path:
        """Where an attempt at a range of a plan stages its files."""
        return self.staging_path / plan_id / f"{offset_range.name}-{attempt}"

    def staged(self) -> list[Path]:
        """List the staging directories of all attempts."""
        plans = self.store.directories(self.staging_path)
        return [attempt for plan in plans for attempt in self.store.directories(plan)]

    def exists(self) -> bool:
        """Tell whether there is a plan."""
        with storage_in_words(self.plans_path):
            return self.plans_path.is_dir() and any(self.plans_path.glob(_PLANS))

    def plans(self) -> list[Plan]:
        """Read all generations of the plan, the first one first.

        Raises LedgerError if one is damaged or missing, or ranges overlap.
        """
        if not self.plans_path.is_dir():
            return []
        # Several at once where each is a request: a topic that is followed for a week has thousands of them.
        paths = sorted(self.plans_path.glob(_PLANS))
        plans = [plan for _, plan in self.store.for_each(lambda path: Plan.from_json(_read("plan", path)), paths)]
        if [plan.generation for plan in plans] != list(range(1, len(plans) + 1)):
            raise LedgerError(f"{self.plans_path} lacks a generation of the plan")
        reached: dict[int, int] = {}
        for offset_range in sorted((each for plan in plans for each in plan.ranges), key=_PLACE):
            if offset_range.start < reached.get(offset_range.partition, 0):
                raise LedgerError(f"the plan in {self.plans_path} holds offsets twice: {offset_range.name}")
            reached[offset_range.partition] = offset_range.end
        return plans

    def begun_with(self) -> Identity:
        """Read what the dataset was begun with: the identity of its first plan."""
        path = self.plans_path / _plan_name(1)
        try:
            return Plan.from_json(_read("plan", path)).identity
        except FileNotFoundError as error:
            raise LedgerError(f"{self.plans_path} lacks a generation of the plan") from error

    def plan_path(self, plan: Plan) -> Path:
        """Where a generation of the plan is, once it is frozen."""
        return self.plans_path / _plan_name(plan.generation)

    def freeze(self, plan: Plan, schema: AvroSchema, earlier: Collection[str] = ()) -> None:
        """Write a generation of the plan, durably, before anything of it is consumed.

        Raises LedgerError if another job has written this generation, or its id is that of an `earlier` one.
        """
        if plan.plan_id in earlier:
            raise LedgerError(f"the next plan of {self.path} would have the id of another, {plan.plan_id}: try again")
        # Even where it is there already: only then is its name known to be on the disk before the plan's.
        self._publish(self.schema_path(plan.identity), schema.text.encode())
        with storage_in_words(self.staging_path):
            self.store.create_plan_directory(self.staging_path / plan.plan_id)
        if not self._publish(self.plan_path(plan), seal("plan", plan.to_json())):
            raise LedgerError(f"another transfer has just planned into {self.outdir}")

    def schema(self, identity: Identity) -> AvroSchema:
        """Read the writer schema that the plan was made with.

        Raises LedgerError if it is missing, or another one.
        """
        path = self.schema_path(identity)
        try:
            schema = _parsed(path.read_bytes())
        except OSError as error:
            raise LedgerError(f"the ledger lacks its schema {path} ({error.strerror}){_MENDS}") from error
        except SchemaError as error:
            raise LedgerError(f"{path} was changed after it was written{_MENDS}") from error
        if schema.fingerprint != identity.schema_sha256:
            raise LedgerError(f"{path} was changed after it was written{_MENDS}")
        return schema

    def restore_schema(self, identity: Identity, schema: AvroSchema) -> None:
        """Put the writer schema back in its place; only the holder of the lease may.

        Raises LedgerError if it is another one.
        """
        path = self.schema_path(identity)
        if schema.fingerprint != identity.schema_sha256:
            raise LedgerError(f"the schema in Kafka is not the one that {path} was")
        with storage_in_words(path):
            self.store.replace(path, schema.text.encode())

    def marker_path(self, offset_range: OffsetRange, revision: int = 0) -> Path:
        """Where a marker of a range is, once it is committed."""
        return self.markers_path / _marker_name(offset_range.name, revision)

    def marker(self, offset_range: OffsetRange, plan_id: str, revision: int = 0) -> Marker | None:
        """Read a marker of a range of a plan, or None where it is not committed.

        Raises LedgerError if it is damaged, or of another range, revision or plan.
        """
        directory = self.markers_path
        name = _marker_name(offset_range.name, revision)
        return _read_marker(self.store.glance(directory), directory, name, offset_range, plan_id, revision)

    def revisions(self) -> dict[str, int]:
        """Find the last revision of each range that has any, by the range's name, in one look at the directory."""
        found: dict[str, int] = {}
        try:
            names = self.store.names(self.markers_path)
        except OSError as error:
            raise storage_error(error, self.markers_path) from error
        later = [name for name in names if name.count(".") == 2]  # of a hundred thousand, few are
        for match in filter(None, map(_REVISION.fullmatch, later)):
            name, revision = match[1], int(match[2])
            found[name] = max(found.get(name, 0), revision)
        return found

    def markers(
        self, plans: Sequence[Plan], damaged: list[DamagedMarker] | None = None, known: KnownMarkers | None = None
    ) -> list[Marker]:
        """Read the marker that counts of each committed range, its last revision, in plan order.

        `damaged`: takes the markers that can't be read; without it, the first one is raised, as one of a later
        fink-dask always is.
        `known`: has the markers that were read before, which are not read again, and takes the others.
        Raises LedgerError if one is damaged, or belongs to another plan than the one that holds its range.
        """
        if not plans:
            return []
        revisions, directory = self.revisions(), self.markers_path
        glance = self.store.glance(directory)

        def read(wanted: tuple[str, OffsetRange, int, str]) -> Marker | LedgerError | None:
            plan_id, offset_range, revision, name = wanted
            if known is not None and (before := known.get(name)) is not None:
                return before
            try:
                return _read_marker(glance, directory, name, offset_range, plan_id, revision)
            except LedgerError as error:
                return error

        def wanted() -> Iterator[tuple[str, OffsetRange, int, str]]:
            for plan in plans:
                for each in plan.ranges:
                    revision = revisions.get(name := each.name, 0)
                    yield plan.plan_id, each, revision, _marker_name(name, revision)

        markers = []
        with collecting_no_garbage():
            for (plan_id, offset_range, revision, name), found in self.store.for_each(read, wanted()):
                if isinstance(found, LedgerError):
                    if damaged is None or isinstance(found, UnknownFormatError):
                        raise found
                    damaged.append(DamagedMarker(plan_id, offset_range, revision, found))
                elif found is not None:
                    if known is not None:
                        known[name] = found
                    markers.append(found)
        return markers

    def add_profile(self, profile: dict[str, Any]) -> None:
        """Keep where the time of a run went; only the holder of the lease may."""
        with storage_in_words(self.profiles_path):
            self.store.make_directory(self.profiles_path)
            number = 1 + sum(1 for _ in self.profiles_path.glob("*.json"))
        while not self._publish(self.profiles_path / f"{number:08d}.json", seal("profile", profile)):
            number += 1

    def schema_path(self, identity: Identity) -> Path:
        """Where the first schema of an identity is."""
        return self.path / f"schema-{identity.schema_sha256[:16]}.avsc"

    def _publish(self, path: Path, content: bytes) -> bool:
        with storage_in_words(path):
            return self.store.put_new(path, content)


@contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """Make many objects, all of which stay: to look for garbage among them, again and again, takes a third as long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@lru_cache(maxsize=_SCHEMAS)
def _parsed(raw: bytes) -> AvroSchema:
    """Parse a schema once: the topics of a season have few between them."""
    return parse_schema(raw)


def ledgers_path(outdir: Path) -> Path:
    """Where the ledger of a dataset is, or those of all topics of a season."""
    return outdir.with_name(outdir.name + LEDGER_SUFFIX)


def latest(ledger: Ledger) -> Ledger:
    """Return the ledger that counts: the last of those with which the dataset was begun again on an object store.

    It may have been copied into a directory since.

    Raises OSError or StorageError if the file system, or the store, does not say.
    """
    return replace(ledger, number=max((each.number for each in ledgers_again(ledger)), default=0))


def ledgers_again(ledger: Ledger) -> list[Ledger]:
    """List the ledgers with which a dataset was begun again on an object store."""
    with suppress(FileNotFoundError, NotADirectoryError):
        names = [path.name for path in ledger.store.directories(ledger.again_path)]
        return [replace(ledger, number=int(name)) for name in names if _AGAIN.fullmatch(name)]
    return []


def _plan_name(generation: int) -> str:
    return f"{generation:08d}.json"


def _marker_name(offset_range: str, revision: int) -> str:
    return f"{offset_range}.{revision}.json" if revision else f"{offset_range}.json"


def _read_marker(
    glance: Callable[[str], bytes], directory: Path, name: str, offset_range: OffsetRange, plan_id: str, revision: int
) -> Marker | None:
    """Read a marker, and check that it is the one that is meant."""
    try:
        if (marker := usual_marker(raw := glance(name), offset_range, plan_id, revision)) is not None:
            return marker
        marker = Marker.from_json(_unsealed_marker(raw, directory / name))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, directory / name) from error
    path = f"{directory}/{name}"
    if marker.range != offset_range:
        raise LedgerError(f"{path} is the marker of another range, {marker.range.name}")
    if marker.revision != revision:
        raise LedgerError(f"{path} is revision {marker.revision} of the range, not {revision}")
    if marker.plan_id != plan_id:
        raise LedgerError(f"{path} belongs to another plan: {marker.plan_id}, not {plan_id}")
    return marker


def _unsealed_marker(raw: bytes, path: Path) -> dict[str, Any]:
    """Read a marker of which all was seen, or once more where it was not: on a store that is another request."""
    with suppress(LedgerError):
        return opened("marker", raw, path)
    return unseal("marker", path)


def _read(kind: str, path: Path) -> dict[str, Any]:
    try:
        return unseal(kind, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error


#: What a file system says where it is not the file that is at fault.
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def storage_error(error: OSError, path: Path) -> StorageError:
    """Say an OSError in one line, with what it happened to: no file of a passing name, but where it may not be.

    What is there and may not be read was most likely to be read, whoever may write beside it.
    """
    if error.errno in _FORBIDDEN:
        named = [os.fspath(each) for each in (error.filename, error.filename2) if isinstance(each, str | os.PathLike)]
        for name in named or [os.fspath(path)]:
            place = nearest(Path(name).parent)
            if not os.access(place, os.X_OK):
                return StorageError(f"can't read {place}: {error.strerror}")
            if not os.access(place, os.W_OK) and (os.access(name, os.R_OK) or not os.path.lexists(name)):
                return StorageError(f"can't write to {place}: {error.strerror}")
    return StorageError(f"{error.strerror or error}: {error.filename or path}")


@contextmanager
def storage_in_words(path: Path) -> Iterator[None]:
    """Let an OSError be what `storage_error` makes of it."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error
