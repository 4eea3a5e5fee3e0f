"""The process that workers are forked from; this module costs nothing to import, so that it can be started first."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any

from fink_dask.errors import SettingsError

_PRELOAD = "fink_dask.cluster.preload"
#: Bytes of a directory in which a socket can have the names that multiprocessing gives it, of the 107 that there are.
_MAX_TMPDIR = 75
_SHORT_TMPDIR = "/tmp"  # noqa: S108 - multiprocessing makes a directory of its own in it
#: How much free memory the C library keeps, and from what size on it asks the system for a block and gives it back at
#: once. Each response of Kafka has up to 8 MiB: asked for anew, all its pages are cleared and mapped again.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 2**24, "MALLOC_MMAP_THRESHOLD_": 2**25}
#: Python's variable for what -P does.
SAFE_PATH = "PYTHONSAFEPATH"


def start_forkserver() -> str:
    """Start the process that workers are forked from, which loads what they need in the background; repeatable.

    Spawned workers would each load it, and two at once take twice as long on two cores. Linux only: on macOS some
    system libraries do not survive a fork.

    Returns: how Dask is to start workers: ``forkserver`` on Linux, ``spawn`` elsewhere.
    """
    # Nothing here multiplies matrices, yet numpy's BLAS would start a thread per core in every process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Dask sets the first for workers that it starts, to 64 KiB; here it must be set before the process that they are
    # forked from starts. Without any, the C library keeps the memory of messages that were freed.
    for name, size in MALLOC.items():
        os.environ.setdefault(name, str(size))
    if sys.platform != "linux":
        return "spawn"
    multiprocessing.set_forkserver_preload([_PRELOAD])
    with _short_temporary_names(), _nothing_from_the_working_directory(), without_interrupts():
        forkserver.ensure_running()
    return "forkserver"


def stop_forkserver() -> None:
    """Stop that process, and forget what it was to load, unless processes of the user's own come from it."""
    is_used = any(type(child).__name__ == "ForkServerProcess" for child in multiprocessing.active_children())
    server: Any = forkserver._forkserver
    if not is_used and server._preload_modules == [_PRELOAD]:
        server._stop()
        multiprocessing.set_forkserver_preload(["__main__"])  # as it is in the beginning


@contextmanager
def _short_temporary_names() -> Iterator[None]:
    """Let multiprocessing keep its sockets where their names are not too long for the system."""
    if len(os.fsencode(tempfile.gettempdir())) <= _MAX_TMPDIR:
        yield
        return
    before, tempfile.tempdir = tempfile.tempdir, _SHORT_TMPDIR
    try:
        util.get_temp_dir()  # it remembers what it has made
        yield
    except OSError as error:
        raise SettingsError(
            f"TMPDIR is {before}, of more than {_MAX_TMPDIR} characters, and the sockets of processes can't have such "
            f"names; {_SHORT_TMPDIR} can't be used instead ({error.strerror}): set TMPDIR to a shorter one"
        ) from error
    finally:
        tempfile.tempdir = before


def is_package_here() -> bool:
    """Tell whether this package is found because it is in the working directory."""
    return Path(__file__).resolve().parents[2] == Path.cwd()


@contextmanager
def _nothing_from_the_working_directory() -> Iterator[None]:
    """Let Python start without the working directory, where a user may have a random.py, among its modules."""
    before = os.environ.get(SAFE_PATH)
    if not is_package_here():
        os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SAFE_PATH, None)
        else:
            os.environ[SAFE_PATH] = before


def hide_main() -> str | None:
    """Let processes start from a script that they can't import, as it is read from standard input.

    Python names it after a file that is not there, ``<stdin>``; without that name it is taken for what it is.

    Returns: that name, for `show_main`; None where nothing is hidden.
    """
    main: Any = sys.modules["__main__"]
    name: str | None = getattr(main, "__file__", None)
    if name is None or Path(name).exists():
        return None
    del main.__file__
    return name


def show_main(name: str | None) -> None:
    """Give the script its name again."""
    if name is not None:
        sys.modules["__main__"].__file__ = name


class _NoPandas(MetaPathFinder):
    """Finds nothing, and ends the search for pandas."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def do_without_pandas() -> None:
    """Let pyarrow look for pandas, which it does only once, while it can't be found.

    Importing pandas takes as long as everything else that a range needs, and no range needs it.
    """
    import numpy as np
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array(np.zeros(0)).to_numpy(zero_copy_only=False)
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def loading(is_ours: bool = False) -> Iterator[None]:
    """Look for no cycles in what is loaded in the block: it stays, and the search takes a tenth of the time.

    `is_ours`: whether the process is nobody else's: then nothing that is there by now is looked through later either.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_ours:
            gc.freeze()
        if was_enabled:
            gc.enable()


def prepare_decoder(is_ours: bool = False) -> None:
    """Compile the decoder or load it from numba's cache; say so where it takes a while; see `loading`."""
    with loading(is_ours):
        # Imported late: the compiler takes a third of a second to import, and this process may not need it.
        from fink_dask.avro.kernels import is_compiled, is_kept_on_disk, warm_up

    if not is_compiled():
        # A terminal may show on this line the spinner of the process that started this one.
        is_drawn = sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
        clear = "\r\x1b[2K" if is_drawn else ""
        often = (
            "once; it takes some seconds"
            if is_kept_on_disk()
            else "at each start; NUMBA_CACHE_DIR=DIR keeps it in a directory that you may write to"
        )
        sys.stderr.write(f"{clear}compiling the decoder for this machine, {often}\n")
    warm_up()


@contextmanager
def without_interrupts(starts_processes: bool = True) -> Iterator[None]:
    """Hold SIGINT back until the block ends.

    A terminal sends it to the whole process group. Threads and processes inherit the mask of the thread that starts
    them, so workers never see it, and this process decides what becomes of them.
    """
    if starts_processes:
        # Started later, in a thread that holds SIGINT back, multiprocessing's own helper would let it through again.
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
