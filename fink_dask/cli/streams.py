"""The streams of the process: they are there, and what becomes of them stops no command."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import Any

_STDOUT, _STDERR = 1, 2


class _Outlet(io.FileIO):
    """Goes nowhere once nobody reads it any more, as behind `| head`, or on a terminal that was closed.

    What a command does is worth more than what it says: it goes on, and ends with the status that it would have. So it
    does where what it says beside its results is written to a disk that is full; results must be written.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        # A terminal that is gone, which is none any more, says so with the error of a disk that fails.
        is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)
        self._gone = {errno.EPIPE, errno.EIO} if is_device else {errno.EPIPE}

    def write(self, data: Any) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._gone:
                if self.fileno() != _STDERR:
                    raise OSError(error.errno, error.strerror, "standard output") from error
                return memoryview(data).nbytes
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Open what was closed, as by ``>&-``: what is printed would go into the next file that is opened."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - for as long as the process lives
    sys.stdout, sys.stderr = _outlet(sys.stdout, _STDOUT), _outlet(sys.stderr, _STDERR)


def _outlet(stream: Any, descriptor: int) -> io.TextIOWrapper:
    """Make a stream that writes like one of Python's, or like any where that was closed."""
    raw = _Outlet(descriptor)
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(raw))
    is_unbuffered = stream.write_through
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=is_unbuffered,
    )
