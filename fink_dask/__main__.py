"""Run the command line: ``fink-dask`` and ``python -m fink_dask`` begin here."""

import signal


def main() -> None:
    """Load the command line, and run it."""
    # There is nothing to stop in good order yet, and Python would answer Ctrl+C with a trace.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fink_dask.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
