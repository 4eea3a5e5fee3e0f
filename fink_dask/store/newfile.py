"""A new file of this host, on its way to the disk."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

if sys.platform == "darwin":
    import fcntl

#: The most that is written at once. Linux gives a file's cache memory in stretches as long as what is written, up to
#: some MiB, and a virtual machine has given long free ones back to its host: each page of these has to come from there
#: again, which takes some twenty times as long as the copy. With less at once, calls cost more.
_PIECE_BYTES = 2**19


def write_pieces(file: io.FileIO | IO[bytes], data: bytes | memoryview) -> int:
    """Write bytes, all of them and not too many at once; returns how many there were."""
    rest = memoryview(data).cast("B")
    size = len(rest)
    while rest:
        rest = rest[file.write(rest[:_PIECE_BYTES]) :]
    return size


class NewFile(io.RawIOBase):
    """A new file that is hashed as it is written, and brought to the disk through the descriptor that wrote it.

    That descriptor is told of what goes wrong on the way to the disk, and one that is opened later may not be; bytes
    that are read back may have gone bad before they are hashed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        # Its name; a file that is there already is emptied.
        self.path = path
        #: Bytes that were written.
        self.size = 0
        self._file = path.open("w+b", buffering=0)
        self._hash = hashlib.sha256()
        self._is_rewritten = False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def tell(self) -> int:
        """Tell where the next byte goes."""
        return self.size

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Add bytes, all of them."""
        whole = memoryview(data).cast("B")
        if self.closed:  # what Arrow's buffer still has of a file that was given up: an error would only be printed
            return len(whole)
        write_pieces(self._file, whole)
        self._hash.update(whole)
        self.size += len(whole)
        return len(whole)

    def rewrite(self, place: int, data: bytes) -> None:
        """Put other bytes in the place of some that were written."""
        os.pwrite(self._file.fileno(), data, place)
        self._is_rewritten = True

    def sha256(self) -> str:
        """Return the checksum of all of it, in hexadecimal."""
        if self._is_rewritten:
            self._file.seek(0)
            return hashlib.file_digest(self._file, "sha256").hexdigest()
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Bring its content to the disk."""
        to_disk(self._file.fileno())

    def close(self) -> None:
        """Close it; repeatable."""
        self._file.close()
        super().close()


def to_disk(descriptor: int) -> None:
    """Bring what was written through a descriptor to the disk."""
    if sys.platform == "darwin":
        # On macOS fsync stops at the drive's cache; this does not (man 2 fsync).
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    # Also where a volume has no such thing, as SMB and exFAT; what is really wrong, this says as well.
    os.fsync(descriptor)
