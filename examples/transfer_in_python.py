"""Transfer a topic from Python, and look at it: ``python transfer_in_python.py SERVERS TOPIC OUTDIR``."""

# ruff: noqa: T201 - an example speaks to its user

from __future__ import annotations

import sys

import fink_dask


def main() -> None:
    """Say what would be done, do it, prove it, and print what the dataset holds then."""
    if len(sys.argv) != 4:
        sys.exit("usage: python transfer_in_python.py SERVERS TOPIC OUTDIR")
    servers, topic, outdir = sys.argv[1:]
    print(f"{fink_dask.plan(topic, outdir, servers, partitionby='time').offsets:,} offsets to read")
    done = fink_dask.transfer(topic, outdir, servers, partitionby="time", dashboard_address="127.0.0.1:0")
    found = fink_dask.verify(outdir)
    print(f"{done.summary.state}: {done.summary.alerts:,} alerts, {len(found.problems)} problems")
    print(done.dataset.head(3, columns=["kafka_partition", "kafka_offset"]))
    sys.exit(done.summary.exit_code)


# Each process that does the work imports this file, and must not begin a transfer of its own.
if __name__ == "__main__":
    try:
        main()
    except fink_dask.FinkDaskError as error:
        sys.exit(str(error))
