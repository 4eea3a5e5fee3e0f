"""A transfer beside Dask's profiler goes on, whichever Python it is."""

from __future__ import annotations

import subprocess
import sys

_LOOKS = """\
import gc, sys, threading, time
from fink_dask.cluster.profiling import look_at_threads_safely

look_at_threads_safely()
gc.callbacks.append(lambda phase, info: time.sleep(0.001))
is_over = threading.Event()

def begin_and_end():
    while not is_over.is_set():
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

beside = threading.Thread(target=begin_and_end)
beside.start()
gc.set_threshold(1)
for _ in range(100):
    assert threading.get_ident() in sys._current_frames()
is_over.set()
beside.join()
assert gc.isenabled()
"""


def test_a_profiler_that_looks_at_threads_while_others_begin_and_end_does_not_stop_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", _LOOKS], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
