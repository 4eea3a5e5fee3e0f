"""Run the command line: ``fink-dask`` and ``python -m fink_dask`` begin here."""

import gc
import os
import sys


def main() -> None:
    """Load the command line, and run it."""
    import signal

    # There is nothing to stop in good order yet, and Python would answer Ctrl+C with a trace.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _have_a_home()
    # Nothing here multiplies matrices, yet NumPy's BLAS would start a thread for each core, in every process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fink_dask.cli.streams import prepare_streams

    prepare_streams()
    # Who kills a transfer is told of semaphores otherwise, by a process of Python's own that tidies up after it: each
    # of Dask's nannies has some, in two queues.
    sys.warnoptions.append("ignore:resource_tracker")
    gc.disable()  # what is loaded stays, and looking for cycles in it takes a tenth of the time
    from fink_dask.cli.main import main as run

    gc.freeze()
    gc.enable()
    run()


def _have_a_home() -> None:
    """Let libraries that look for their settings at home find none, where a user has no home, as in a container.

    Some end the program otherwise.
    """
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - pathlib raises where there is none
        os.environ["HOME"] = "/nonexistent"  # as Debian calls the home of those who have none


def _forget_the_working_directory() -> None:
    """Import nothing of the working directory, where ``python -m`` looks first, unless the package itself is there."""
    try:
        here = os.getcwd()  # noqa: PTH109 - pathlib is not loaded yet, and could be a user's
    except OSError:  # it is gone, as the command line says
        here = ""
    if sys.path and sys.path[0] in {"", here} and os.path.dirname(os.path.dirname(__file__)) != here:  # noqa: PTH120
        del sys.path[0]


if __name__ == "__main__":
    _forget_the_working_directory()
    main()
