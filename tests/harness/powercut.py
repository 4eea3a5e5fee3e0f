"""Record what reaches the disk, and say what a power cut would leave.

The model is harsher than any file system: a file's content is on the disk from its fsync on, a name from the fsync of
the directory that holds it. A rename is atomic: the old name goes when the new one is on the disk. In `eager` mode a
removal reaches the disk at once, whatever was not synced before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fink_dask.store import newfile

#: Path of everything below the root, with an identity that outlives a rename.
Tree = dict[Path, int]


@dataclass
class Event:
    """The tree after an operation; for an fsync also what was synced, and its content."""

    tree: Tree
    synced: int | None = None
    name: str = ""
    content: bytes | None = None


@dataclass
class Recorder:
    """Watches everything that happens below a directory."""

    root: Path
    events: list[Event] = field(default_factory=list)
    _identities: dict[int, int] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    def attach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note the tree after each operation, until `monkeypatch` is undone."""
        self.note()
        for name in ("link", "mkdir", "rename", "rmdir", "unlink"):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name)))
        monkeypatch.setattr(newfile, "to_disk", self._sync)

    def note(self) -> Event:
        """Take down the tree as it is."""
        inodes = {path: path.stat().st_ino for path in [self.root, *self.root.rglob("*")]}
        # The number of what is gone is given to something else.
        self._identities = {inode: self._identities.get(inode, -1) for inode in inodes.values()}
        for inode, identity in self._identities.items():
            if identity < 0:
                self._identities[inode] = next(self._numbers)
        event = Event({path: self._identities[inode] for path, inode in inodes.items()})
        self.events.append(event)
        return event

    def _noting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            try:
                return real(*args, **options)
            finally:
                self.note()

        return noted

    def _sync(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        self.note()
        event = self.note()
        event.synced = self._identities[inode]
        paths = [path for path, identity in event.tree.items() if identity == event.synced]
        event.name = str(paths[0].relative_to(self.root))
        if paths[0].is_file():
            event.content = paths[0].read_bytes()


def after_power_cut(
    root: Path, events: list[Event], eager: bool, ignored: Collection[int] = ()
) -> list[dict[Path, bytes | None]]:
    """Say what is on the disk after each event; None is the content of a file that was never synced.

    `root`: A directory that is on the disk.
    `events`: what a `Recorder` noted; the tree of the first one is on the disk.
    `ignored`: events whose fsync is taken for not made.
    """
    entries: dict[int, dict[str, int]] = {}
    contents: dict[int, bytes] = {}
    for path, identity in events[0].tree.items():
        if path != root:
            entries.setdefault(events[0].tree[path.parent], {})[path.name] = identity
    found = []
    before = events[0].tree
    for index, event in enumerate(events):
        tree = event.tree
        if eager:
            for path in before.keys() - tree.keys():
                names = entries.get(before.get(path.parent, -1), {})
                if before[path] not in tree.values() and names.get(path.name) == before[path]:
                    del names[path.name]
        if event.synced is not None and index not in ignored:
            if event.content is not None:
                contents[event.synced] = event.content
            else:
                _sync_directory(tree, event.synced, entries)
        found.append(_visible(root, tree[root], entries, contents))
        before = tree
    return found


def _sync_directory(tree: Tree, synced: int, entries: dict[int, dict[str, int]]) -> None:
    now = {path.name: identity for path, identity in tree.items() if tree.get(path.parent) == synced}
    arrived = set(now.values()) - set(entries.get(synced, {}).values())
    # What was renamed leaves its old directory when it arrives in its new one.
    live = {(tree.get(path.parent), path.name) for path in tree}
    for directory, names in entries.items():
        for name in [name for name, what in names.items() if what in arrived and (directory, name) not in live]:
            del names[name]
    kept = {
        name: what for name, what in entries.get(synced, {}).items() if name not in now and _moved(tree, what, entries)
    }
    entries[synced] = {**kept, **now}


def _moved(tree: Tree, what: int, entries: dict[int, dict[str, int]]) -> bool:
    """Tell whether something has a new name that is not on the disk yet; it keeps the old one until then."""
    homes = {tree[path.parent] for path, identity in tree.items() if identity == what and path.parent in tree}
    return bool(homes) and not any(what in entries.get(home, {}).values() for home in homes)


def _visible(
    path: Path, identity: int, entries: dict[int, dict[str, int]], contents: dict[int, bytes]
) -> dict[Path, bytes | None]:
    found: dict[Path, bytes | None] = {path: contents.get(identity)}
    for name, child in entries.get(identity, {}).items():
        found |= _visible(path / name, child, entries, contents)
    return found
