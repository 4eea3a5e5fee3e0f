"""What a catalog notes of itself, so that it can grow: its form, what it has of which topics, and its versions.

::

    NAME_v3/ …                           the rows of objects, their margin, and their index
    movers/NAME_movers_v2/ …             the same of what moves
    versions/3/                          what readers of both look for first, and the note
    versions/current                     a link to it: replacing it shows all of a growth at once
    collection.properties                a link through it, and so is the one in movers/
"""

from __future__ import annotations

import base64
import binascii
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from hats.pixel_math import HealpixPixel

from fink_dask.catalog.form import MOVERS, Form
from fink_dask.catalog.version import Place, Version, sync_tree
from fink_dask.errors import LedgerError
from fink_dask.ledger.records import Identity, Marker, seal, unseal
from fink_dask.store.local import LOCAL

VERSIONS, _CURRENT = "versions", "current"
_NOTE = "fink-dask.json"
_KIND = "catalog"
#: What LSDB opens first: it names the version that readers find.
_COLLECTION = "collection.properties"

#: Topic, Kafka's id of it, partition, first and end offset, and revision of a range.
Taken = tuple[str, str, int, int, int, int]


def taken_of(identity: Identity, marker: Marker) -> Taken:
    """Name a range of a topic as it is now."""
    offset_range = marker.range
    return (
        identity.topic,
        identity.topic_id,
        offset_range.partition,
        offset_range.start,
        offset_range.end,
        marker.revision,
    )


@dataclass(frozen=True)
class State:
    """What is noted of a catalog."""

    #: What it is called, wherever it is moved to.
    name: str
    #: How often it was written; 0 before the first time.
    number: int
    #: The columns that it was begun with.
    form: Form
    #: Those that were asked for.
    columns: tuple[str, ...] | None
    #: The ranges whose alerts it has.
    taken: frozenset[Taken] = frozenset()
    #: The versions of objects and of what moves; number 0 of one that there is not.
    versions: tuple[Version, Version] = (Version(0), Version(0))

    def places(self, directory: Path) -> tuple[Place, Place]:
        """Tell where both are."""
        return Place(directory, self.name), Place(directory / MOVERS, f"{self.name}_{MOVERS}")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "name": self.name,
            "number": self.number,
            "form": {**vars(self.form), "columns": _text(self.form.columns)},
            "columns": self.columns,
            "taken": sorted(self.taken),
            "versions": [
                {
                    "number": version.number,
                    "pixels": [[int(p.order), int(p.pixel), *sizes] for p, sizes in version.pixels.items()],
                    "alerts": version.alerts,
                    "indexes": version.indexes,
                }
                for version in self.versions
            ],
        }


def publish(directory: Path, state: State) -> None:
    """Let readers find the versions that were written, of objects and of what moves at once."""
    current = directory / VERSIONS / _CURRENT
    told = current.with_name(str(state.number))
    LOCAL.remove_tree(told)  # of an export that was killed
    told.mkdir(parents=True)
    for place, version in zip(state.places(directory), state.versions, strict=True):
        if version.number:
            below = place.directory.relative_to(directory)
            (told / below).mkdir(exist_ok=True)
            place.collection(version).to_properties_file(told / below)
            link = place.directory / _COLLECTION
            if not link.is_symlink():  # it leads nowhere until the rename below
                link.symlink_to(os.path.relpath(current / below / _COLLECTION, place.directory))
            for written in place.directories(version.number):
                sync_tree(written)
            LOCAL.sync(place.directory)
    LOCAL.write_new(told / _NOTE, seal(_KIND, state.to_json()))
    sync_tree(told)
    for path in (current.parent, directory):
        LOCAL.sync(path)
    aside = current.with_name(f".{_CURRENT}.{uuid.uuid4().hex}")
    aside.symlink_to(told.name)
    aside.rename(current)
    LOCAL.sync(current.parent)


def remove_others(directory: Path, state: State) -> None:
    """Remove all versions but those that readers find, and the ones before them, which some may still read."""
    for place, version in zip(state.places(directory), state.versions, strict=True):
        for number, written in place.versions():
            if number not in (version.number - 1, version.number):
                LOCAL.remove_tree(written)
    versions = directory / VERSIONS
    for path in versions.iterdir() if versions.is_dir() else ():
        if path.name not in (_CURRENT, str(state.number)):
            if path.is_symlink():
                path.unlink()
            else:
                LOCAL.remove_tree(path)


def read_state(directory: Path) -> State | None:
    """Read what is noted of the versions that readers find now; None if there is no catalog, or another program's.

    Raises LedgerError if the note is damaged, or the catalog was copied without its links.
    """
    current = directory / VERSIONS / _CURRENT
    note = current / _NOTE
    try:
        content = unseal(_KIND, note)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not current.is_symlink():
        raise LedgerError(
            f"{directory} was copied without its symbolic links, so that it can be read, but not grow: copy it with "
            "them, such as by cp -a or rsync -a, or export to another directory"
        )
    try:
        return _state_of(content)
    except (KeyError, TypeError, ValueError, binascii.Error, pa.ArrowException) as error:
        raise LedgerError(f"{note} is damaged: {error}"[:300]) from error


def _state_of(content: Mapping[str, Any]) -> State:
    noted, columns = content["form"], content["columns"]
    objects, movers = map(_version_of, content["versions"])
    return State(
        name=str(content["name"]),
        number=int(content["number"]),
        form=Form(**{**noted, "columns": _schema(noted["columns"]), "measured": tuple(noted["measured"])}),
        columns=None if columns is None else tuple(columns),
        taken=frozenset((str(topic), str(name), *map(int, numbers)) for topic, name, *numbers in content["taken"]),  # type: ignore[misc]
        versions=(objects, movers),
    )


def _version_of(content: Mapping[str, Any]) -> Version:
    pixels = {HealpixPixel(order, number): (rows, weight) for order, number, rows, weight in content["pixels"]}
    return Version(int(content["number"]), pixels, int(content["alerts"]), tuple(content["indexes"]))


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
