"""What a catalog notes of itself, so that it can grow: its form, what it has of which topics, and its version."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.pixel_math import HealpixPixel

from fink_dask.catalog.form import Form
from fink_dask.catalog.version import Place, Version, sync_tree
from fink_dask.errors import LedgerError
from fink_dask.ledger.records import Identity, Marker, seal, unseal
from fink_dask.store.durable import remove_tree, replace_file, sync_directory

#: The name of the note, in the directory with the rows of a version.
_NOTE = "fink-dask.json"
_KIND = "catalog"
#: What LSDB opens first: it names the version that readers find.
_COLLECTION = "collection.properties"

#: Topic, Kafka's id of it, partition, first and end offset, and revision of a range.
Taken = tuple[str, str, int, int, int, int]


def taken_of(identity: Identity, marker: Marker) -> Taken:
    """Name a range of a topic as it is now."""
    range_ = marker.range
    return identity.topic, identity.topic_id, range_.partition, range_.start, range_.end, marker.revision


@dataclass(frozen=True)
class State:
    """What is noted of a version."""

    #: The columns that the catalog was begun with.
    form: Form
    #: Those that were asked for.
    columns: tuple[str, ...] | None
    #: The ranges whose alerts it has.
    taken: frozenset[Taken]
    version: Version

    def write(self, place: Place) -> None:
        """Note it beside the rows of its version."""
        version = self.version
        content = {
            "form": {**vars(self.form), "columns": _text(self.form.columns)},
            "columns": self.columns,
            "taken": sorted(self.taken),
            "version": version.number,
            "pixels": [[int(p.order), int(p.pixel), *sizes] for p, sizes in version.pixels.items()],
            "alerts": version.alerts,
            "indexes": version.indexes,
        }
        replace_file(place.main(version.number) / _NOTE, seal(_KIND, content))


def publish(place: Place, before: State | None, after: State) -> None:
    """Let readers find a version that was written; if it is the one that they have, note only what it has now."""
    after.write(place)
    if before is None or before.version.number != after.version.number:
        for directory in place.directories(after.version.number):
            sync_tree(directory)
        sync_directory(place.directory)
        with tempfile.TemporaryDirectory() as aside:
            place.collection(after.version).to_properties_file(aside)
            content = (Path(aside) / _COLLECTION).read_bytes()
        replace_file(place.directory / _COLLECTION, content)


def remove_others(found: Sequence[tuple[Place, State | None]]) -> None:
    """Remove all versions but the one that readers find, and the one before it, which some of them may still read."""
    for place, state in found:
        newest = 0 if state is None else state.version.number
        for number, directory in place.versions():
            if number not in (newest - 1, newest):
                remove_tree(directory)
        for left in place.directory.glob(f".{_COLLECTION}.*"):
            left.unlink(missing_ok=True)


def find_place(directory: Path, name: str) -> Place:
    """Find a catalog, which goes by the name that it was begun with, wherever it was moved to."""
    try:
        return Place(directory, CollectionProperties.read_from_dir(directory).name)
    except (FileNotFoundError, NotADirectoryError):
        return Place(directory, name)
    except ValueError as error:
        raise LedgerError(f"{directory / _COLLECTION} can't be read: {error}"[:300]) from error


def read_state(place: Place) -> State | None:
    """Read what is noted of the version that readers find now; None if there is no catalog, or another program's.

    Raises LedgerError if the note is damaged.
    """
    try:
        main = place.directory / CollectionProperties.read_from_dir(place.directory).hats_primary_table_url
        content = unseal(_KIND, main / _NOTE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _state_of(content)
    except (KeyError, TypeError, ValueError, binascii.Error, pa.ArrowException) as error:
        raise LedgerError(f"{main / _NOTE} is damaged: {error}"[:300]) from error


def _state_of(content: Mapping[str, Any]) -> State:
    noted = content["form"]
    form = Form(**{**noted, "columns": _schema(noted["columns"]), "measured": tuple(noted["measured"])})
    pixels = {HealpixPixel(order, number): (rows, weight) for order, number, rows, weight in content["pixels"]}
    version = Version(int(content["version"]), pixels, int(content["alerts"]), tuple(content["indexes"]))
    columns = content["columns"]
    taken = frozenset((str(topic), str(name), *map(int, numbers)) for topic, name, *numbers in content["taken"])
    return State(form, None if columns is None else tuple(columns), taken, version)  # type: ignore[arg-type]


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
