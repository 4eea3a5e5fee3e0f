"""What lets Dask look at the threads of a worker on a Python that may stop for ever while they are looked at.

Before 3.11.9, `sys._current_frames` collects garbage with the list of threads locked. What Dask has called for each
collection gives way to other threads, and one that begins or ends wants the list, and has the interpreter:
https://github.com/python/cpython/issues/116969. A worker's profiler asks a hundred times a second, and a range begins
and ends threads, so that a transfer in threads of the user's process stopped once in some thousand times. Python 3.11.9
collects nothing meanwhile.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from types import FrameType

_look = sys._current_frames
_lock = threading.RLock()


def current_frames() -> dict[int, FrameType]:
    """Return what `sys._current_frames` does, and collect no garbage meanwhile."""
    with _lock:
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            return _look()
        finally:
            if is_enabled:
                gc.enable()


def look_at_threads_safely() -> None:
    """Have every profiler of this process look that way, where Python does not do so by itself."""
    if sys.version_info < (3, 11, 9) and sys._current_frames is _look:
        sys._current_frames = current_frames
        # Another thread may hold the lock when a process is forked.
        os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
