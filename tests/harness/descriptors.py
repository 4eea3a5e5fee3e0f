"""What this process has open: of one folder, as other files come and go with the threads around a test."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil


def open_below(folder: Path) -> list[str]:
    """List what is open in a folder; on Linux, directories too."""
    if sys.platform != "linux":
        found = [file.path for file in psutil.Process().open_files()]
    else:
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # it was that of the list itself, or another thread has closed it
                found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(folder.resolve()))]
