"""Count the alerts of each class, straight from Kafka or by way of a dataset.

``classes_job.py HOW SERVERS TOPIC OUTDIR WORKERS``: HOW is ``lazy`` for `read_topic`, or ``stored`` for `transfer` and
then Dask's reading of the Parquet files. Both run on one Dask cluster, of processes with one thread each, which is
started before the clock is.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import dask.dataframe as dd
from distributed import Client

import fink_dask


def main() -> None:
    """Print a line of JSON: seconds, the counts, and the partitions of the frame."""
    how, servers, topic, outdir, workers = sys.argv[1:]
    with Client(n_workers=int(workers), threads_per_worker=1, dashboard_address=None) as client:
        client.wait_for_workers(int(workers))
        client.run(lambda: fink_dask.read_topic)  # what is imported once, and compiled once, is not measured
        began = time.monotonic()
        if how == "lazy":
            frame = fink_dask.read_topic(topic, servers)
        else:
            fink_dask.transfer(topic, Path(outdir), servers, partitionby="time", progress=False)
            frame = dd.read_parquet(outdir, columns=["finkclass"])
        counts = frame.groupby("finkclass").size().compute()
        seconds = time.monotonic() - began
        # Of a whole process, with what it has loaded.
        peaks = client.run(_peak_bytes)
    found = {str(name): int(count) for name, count in sorted(counts.items())}
    answer = {"seconds": round(seconds, 2), "partitions": frame.npartitions, "counts": found}
    sys.stdout.write(json.dumps(answer | {"most_bytes_of_a_worker": max(peaks.values())}) + "\n")


def _peak_bytes() -> int:
    """Return the most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
