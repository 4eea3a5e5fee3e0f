"""Transfer a topic from Python: ``python transfer_in_python.py SERVERS TOPIC OUTDIR``.

There is no documented Python interface yet. This calls what ``fink-dask transfer`` calls, and may have to change with
the next version.
"""

# ruff: noqa: T201 - an example speaks to its user

from __future__ import annotations

import sys
from pathlib import Path

from fink_dask.cluster.run import Where, run_transfer
from fink_dask.config import KafkaSettings, TransferSettings
from fink_dask.transfers.events import Event, RangeCommitted


def show(event: Event) -> None:
    """Print each range that has become part of the dataset; the other events are left alone."""
    if isinstance(event, RangeCommitted):
        print(f"partition {event.range.partition}: {event.rows:,} alerts")


def main() -> None:
    """Transfer a topic and print what the dataset holds then."""
    if len(sys.argv) != 4:
        sys.exit("usage: python transfer_in_python.py SERVERS TOPIC OUTDIR")
    servers, topic, outdir = sys.argv[1:]
    settings = TransferSettings(topic, Path(outdir), KafkaSettings(servers), partitionby=("time",), nconsumers=2)
    outcome = run_transfer(settings, show, Where(dashboard_address="127.0.0.1:0"))
    summary = outcome.summary
    print(f"{summary.state}: {summary.alerts:,} alerts in {summary.files:,} files")
    sys.exit(summary.exit_code)


# Workers are spawned: each imports this file, and must not begin a transfer of its own.
if __name__ == "__main__":
    main()
