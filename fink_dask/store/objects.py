"""Paths of an object store: what the ledger does in a directory, done in a bucket.

An object appears whole or not at all, and is durable when the store has acknowledged it. There are no directories: one
is there as long as the name of an object leads through it. Nothing can be renamed.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import re
import stat
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, cast

from fink_dask.errors import SettingsError, StorageError

#: How a URL begins.
_URL = re.compile(r"([A-Za-z0-9]+)://([^/]*)/?(.*)", re.DOTALL)
#: S3's own rules allow less, other stores more.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
#: Bytes that are asked for at once where an object is read from beginning to end.
_READ_BYTES = 8 * 2**20
#: How often a put that must not replace anything is tried where the store does not say what became of it.
_TRIES = 5
#: Simultaneous puts by which a store is tested for letting only one win, and how often.
_AT_ONCE = 8
_PROBES = 2

if TYPE_CHECKING:
    from fink_dask.store.bucket import Bucket


class ObjectPath(PurePosixPath):
    """The name of an object, or a prefix of names: ``/s3:bucket/key``, and ``s3://bucket/key`` as text.

    What would touch the file system is not there, whatever Python's next version adds to `Path`.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, url: str) -> ObjectPath:
        """Read a URL.

        Raises SettingsError if it names no dataset on a store.
        """
        match = _URL.fullmatch(url)
        scheme, bucket, key = match.groups() if match else ("", "", "")
        parts = [part for part in key.split("/") if part not in {"", "."}]
        if not _BUCKET.fullmatch(bucket) or ".." in parts or not url.isprintable():
            raise SettingsError(f"{url[:200]!a} is not a place on an object store such as s3://BUCKET/NAME")
        if not parts:
            raise SettingsError(f"{url} is a whole bucket: name a place in it, such as {scheme}://{bucket}/alerts")
        return cls("/", f"{scheme}:{bucket}", *parts)

    def __str__(self) -> str:
        # Below a dataset, a name is relative, as `relative_to` makes it.
        return "/".join(self.parts[1:]).replace(":", "://", 1) if self.is_absolute() else "/".join(self.parts)

    @property
    def as_path(self) -> Path:
        """Itself, as the rooms above have it: they take any place for a `Path`, and do with it what is defined here."""
        return cast("Path", self)

    def __fspath__(self) -> NoReturn:
        raise TypeError(f"{self} is not a file")

    @property
    def bucket(self) -> Bucket:
        """The bucket."""
        from fink_dask.store.bucket import open_bucket  # here, as a directory is no place in one

        scheme, _, name = self.parts[1].partition(":")
        return open_bucket(scheme, name)

    @property
    def key(self) -> str:
        """The object's name in its bucket."""
        return "/".join(self.parts[2:])

    @property
    def parents(self) -> tuple[ObjectPath, ...]:
        """The prefixes above it in the bucket, the nearest first."""
        return tuple(type(self)(*self.parts[:length]) for length in range(len(self.parts) - 1, 2, -1))

    def resolve(self) -> ObjectPath:
        """Return itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Tell whether there is an object of this name, or any below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        try:
            self.bucket.head(self.key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Tell whether there is any object below this name."""
        return next(self.bucket.below(self.key), None) is not None

    def is_symlink(self) -> bool:
        """Return False."""
        return False

    def stat(self) -> os.stat_result:
        """Say how large an object is, and when it was written by the store's clock."""
        found = self.bucket.head(self.key)
        times = (found.modified,) * 3
        return os.stat_result((stat.S_IFREG, 0, 0, 1, 0, 0, found.size, *map(int, times)), {})

    def iterdir(self) -> Generator[ObjectPath, None, None]:
        """Yield what is directly below this name, if anything."""
        prefixes, objects = self.bucket.children(self.key)
        for key in (*prefixes, *(found.key for found in objects)):
            yield self._at(key)

    def directories(self) -> list[ObjectPath]:
        """List the prefixes directly below this name."""
        return [self._at(key) for key in self.bucket.children(self.key)[0]]

    def sizes(self) -> dict[Path, int]:
        """List all objects below this name, with their sizes in bytes."""
        return {self._at(found.key).as_path: found.size for found in self.bucket.below(self.key)}

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield what is directly below this name and matches a pattern."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield the objects below this name that match a pattern."""
        paths = (self._at(found.key) for found in self.bucket.below(self.key))
        return (path for path in paths if fnmatch.fnmatchcase(path.name, pattern))

    def read_bytes(self) -> bytes:
        """Read the object."""
        return self.bucket.get(self.key)

    def read_text(self) -> str:
        """Read the object as text in UTF-8."""
        return self.read_bytes().decode()

    def open(self, mode: str = "r", buffering: int = -1) -> Any:
        """Open the object for reading its bytes."""
        if mode != "rb":
            raise ValueError(f"an object can't be opened as {mode!r}")
        size = self.bucket.head(self.key).size
        return io.BufferedReader(_Reader(self, size), _READ_BYTES if buffering < 1 else buffering)

    def write_bytes(self, data: Any) -> int:
        """Write the object, replacing one that may be there."""
        self.bucket.put(self.key, bytes(data))
        return len(data)

    def write_text(self, data: str) -> int:
        """Write the object as text in UTF-8."""
        return self.write_bytes(data.encode())

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object; the store does not say whether it was there."""
        self.bucket.delete([self.key])

    def upload(self, files: Sequence[Path], should_stop: Callable[[], bool] = lambda: False) -> None:
        """Write local files as objects below this name, under their own names; see `Uploads.send`."""
        self.bucket.uploads.send(f"{self.key}/", files, should_stop)

    def remove_unfinished(self) -> None:
        """Remove what uploads to objects below this name have left that were not completed, as far as it goes."""
        self.bucket.remove_unfinished(f"{self.key}/")

    def copy_to(self, target: ObjectPath) -> None:
        """Copy the object within its bucket; the store does it, and the copy appears whole."""
        self.bucket.copy(self.key, target.key)

    def create(self, content: bytes) -> bool:
        """Write the object unless there is one; of all that try, one does. False where another one has.

        `content`: either nobody else writes the same, or it does not matter who did: an object that holds it already is
        taken for this one. A store refuses the second try of a put that it has carried out, but whose answer was lost.
        Raises StorageError if the store does not tell; the object may still appear later.
        """
        for attempt in range(_TRIES):
            failure: Exception | None = None
            try:
                if self.try_to_create(content):
                    return True
            except StorageError as error:
                failure = error
            try:
                return self.read_bytes() == content
            except FileNotFoundError:
                # Of two puts at once both may be refused, with the advice to try again.
                if failure is not None or attempt == _TRIES - 1:
                    raise failure or StorageError(f"the store neither takes {self} nor has it") from None
        raise AssertionError

    def check_conditions(self) -> None:
        """Test whether the store lets only one of several puts win, even when all come at once: a safe commit needs it.

        A process tests each bucket once.

        Raises StorageError if it does not, or refuses to write or to remove.
        """
        if self.bucket.heeds_conditions:
            return
        probes = [self / f".probe-{uuid.uuid4().hex}" for _ in range(_PROBES)]
        contents = [str(number).encode() for number in range(_AT_ONCE)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for probe in probes:
                    won = sum(pool.map(probe.try_to_create, contents))
                    held = probe.read_bytes()
                    if won > 1 or not probe.exchange(held, b"-") or probe.exchange(held, b"+"):
                        raise StorageError(
                            f"the object store of {self} does not keep to If-None-Match and If-Match when requests "
                            "come at once, as a safe commit needs it to; keep the dataset on another one"
                        )
            finally:
                self.bucket.delete([probe.key for probe in probes])
        self.bucket.heeds_conditions = True

    def delete_each(self, names: Sequence[str]) -> None:
        """Remove objects below this name."""
        self.bucket.delete([f"{self.key}/{name}" for name in names])

    def delete_below(self) -> None:
        """Remove all objects below this name."""
        self.bucket.delete([found.key for found in self.bucket.below(self.key)])

    def try_to_create(self, content: bytes) -> bool:
        """Write the object unless there is one; False where the store refuses, which may even follow on success."""
        try:
            self.bucket.put_new(self.key, content)
        except FileExistsError:
            return False
        return True

    def exchange(self, before: bytes, after: bytes) -> bool:
        """Replace the content `before` by another; False where the object holds something else."""
        try:
            version = self.bucket.head(self.key).version
            if self.read_bytes() != before:
                return False
            self.bucket.put_instead(self.key, after, version)
        except (FileNotFoundError, FileExistsError):
            return False
        return True

    def _at(self, key: str) -> ObjectPath:
        return type(self)(*self.parts[:2], key)


class _Reader(io.RawIOBase):
    """Reads the bytes of an object, as many at a time as are asked for."""

    def __init__(self, path: ObjectPath, size: int) -> None:
        self._path = path
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        content = self._path.bucket.get_range(self._path.key, self._position, end)
        if len(content) != end - self._position:
            raise OSError(errno.EIO, "The store did not give the bytes that were asked for", str(self._path))
        buffer[: len(content)] = content
        self._position = end
        return len(content)
