"""An object store: what is written, linked and renamed in a file system, put and copied.

An object is durable when its put is acknowledged; a put that must not replace anything stands for the link, and a copy
for the rename: what was copied stays until all that was staged with it is removed. There are no directories.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from fink_dask.store.newfile import NewFile
from fink_dask.store.objects import ObjectPath
from fink_dask.store.store import Heartbeat, Item, Result

#: The object that stands for a directory.
_ADMITTED = ".admitted"
#: Requests that are made at once.
_AT_ONCE = 16
#: The fewest bytes of an object that are asked for at once, where some of its columns are read.
_READ_BYTES = 2**18


class RemoteStore:
    """An object store."""

    renames: ClassVar = False
    look_s: ClassVar = 5.0
    note_s: ClassVar = 10.0

    def sync(self, path: Path) -> None:
        pass

    def write_new(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)

    def put_new(self, target: Path, content: bytes) -> bool:
        return _object(target).create(content)

    def replace(self, target: Path, content: bytes) -> None:
        target.write_bytes(content)

    def note(self, target: Path, content: bytes) -> None:
        target.write_bytes(content)

    def link(self, source: Path, target: Path) -> bool:
        try:
            content = source.read_bytes()
        except FileNotFoundError:
            return False  # a roll forward may have put it, published what it names, and removed it
        return _object(target).create(content)

    def share(self, source: Path, target: Path) -> None:
        _object(source).copy_to(_object(target))

    def move(self, source: Path, target: Path) -> None:
        _object(source).copy_to(_object(target))

    def move_tree(self, source: Path, target: Path, names: Sequence[str] | None = None) -> None:
        if names is None:
            names = [path.relative_to(source).as_posix() for path in self.files_below(source)]

        def copy(name: str) -> None:
            with suppress(FileNotFoundError):
                self.share(source / name, target / name)

        for _ in self.for_each(copy, names[1:]):
            pass
        for first in names[:1]:
            copy(first)
        _object(source).delete_each(names)

    def remove_tree(self, directory: Path) -> None:
        _object(directory).delete_below()

    def try_commit(self, trial: Path) -> None:
        _object(trial.parent).check_conditions()

    def make_directory(self, path: Path) -> list[Path]:
        return []

    def make_directory_of(self, root: Path, path: str) -> None:
        pass

    def are_together(self, first: Path, second: Path) -> bool:
        return True

    def is_there(self, directory: Path) -> bool:
        return True

    def directories(self, path: Path) -> list[Path]:
        return [each.as_path for each in _object(path).directories()]

    def names(self, path: Path) -> list[str]:
        return [each.name for each in path.iterdir()]

    def files_below(self, directory: Path, known: Set[Path] = frozenset()) -> Iterator[Path]:
        yield from sorted(_object(directory).sizes())

    def glance(self, directory: Path) -> Callable[[str], bytes]:
        return lambda name: (directory / name).read_bytes()

    def size_finder(self, *roots: Path) -> Callable[[Path, str, int], bool]:
        # In a few requests, instead of one for each file.
        known = {path: size for root in roots for path, size in _object(root).sizes().items()}
        return lambda root, path, size: known.get(root / path) == size

    def for_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(lambda item: (item, function(item)), items)

    def create_plan_directory(self, directory: Path) -> None:
        self.plan_directory(directory).write_bytes(b"")

    def plan_directory(self, directory: Path) -> Path:
        return directory / _ADMITTED

    def create_staging(self, directory: Path) -> Path:
        if not self.has_staging(directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory.parent))
        return self.scratch(directory)

    def has_staging(self, directory: Path) -> bool:
        return self.plan_directory(directory.parent).exists()

    def scratch(self, directory: Path) -> Path:
        return Path(tempfile.mkdtemp(prefix="fink-dask-"))

    def persist(
        self, files: Sequence[NewFile], directory: Path, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.send([file.path for file in files], directory, should_stop)
        for file in files:
            file.path.unlink()

    def send(self, files: Sequence[Path], directory: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
        _object(directory).upload(files, should_stop)

    def remove_unfinished(self, directory: Path) -> None:
        _object(directory).remove_unfinished()

    def heartbeat(self, path: Path) -> Heartbeat:
        return _Heartbeat(_object(path))

    def last_heartbeat(self, path: Path) -> float | None:
        with suppress(FileNotFoundError):
            found = path.stat()
            return found.st_mtime if found.st_size else None
        return None

    def time(self, aside: Path) -> float:
        aside.write_bytes(aside.read_bytes())
        return aside.stat().st_mtime

    def free_bytes(self, place: Path) -> int | None:
        return None

    def number(self, path: Path) -> int:
        return zlib.crc32(str(path).encode())

    def shared_directory(self, path: Path, what: str) -> Path:
        # The working directory, in which jobs of a batch system begin. Several buckets may have a place of that name.
        return Path.cwd() / f"{path.name}-{what}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"

    def source(self, path: Path) -> Any:
        return path.open("rb", _READ_BYTES)

    def filesystem(self, path: Path) -> tuple[Any, str]:
        bucket = _object(path).bucket
        filesystem, root = bucket.service.filesystem()
        return filesystem, f"{root}/{_object(path).key}"


class _Heartbeat:
    """An object that is written again and again, as long as nobody has replaced it; an empty one is a free lease."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self._content = path.read_bytes()

    def renew(self) -> None:
        self._path.exchange(self._content, self._content)

    def end(self) -> None:
        self._path.exchange(self._content, b"")


def _object(path: Path) -> ObjectPath:
    assert isinstance(path, ObjectPath)
    return path
