"""Have many workers report how far their ranges are: what a report costs the scheduler and the client.

``python -m benchmarks.jobs.reports_job WORKERS`` answers with one JSON object. Workers, scheduler and client are in
this process; nothing is read, and each worker reports as often as one that transfers a range. What the same cluster
takes while nobody reports is subtracted.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

import dask
from distributed import Client, LocalCluster, get_worker

from fink_dask.cluster.local import DASK_CONFIG
from fink_dask.cluster.worker import REPORT_S
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeProgress

SECONDS = 20.0
_TOPIC = "fink-dask-progress-benchmark"


def main() -> None:
    """Measure with as many workers as the command line says."""
    workers, heard = int(sys.argv[1]), 0

    def hear(_: Any) -> None:
        nonlocal heard
        heard += 1

    with (
        dask.config.set(DASK_CONFIG),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.subscribe_topic(_TOPIC, hear)
        idle = _run(client, workers, False)
        used = _run(client, workers, True) - idle
    answer = {
        "workers": workers,
        "reports a second": round(heard / SECONDS),
        "processor time of a report, in ms": round(1e3 * used / max(1, heard), 2),
        "share of a core": round(used / SECONDS, 2),
    }
    print(json.dumps(answer))


def _run(client: Client, workers: int, is_loud: bool) -> float:
    """Keep all workers busy for a while; returns the processor time of that."""
    began = time.process_time()
    client.gather(client.map(_work, range(workers), is_loud=is_loud, pure=False))
    return time.process_time() - began


def _work(number: int, is_loud: bool) -> None:
    worker, end = get_worker(), time.monotonic() + SECONDS
    progress = asdict(RangeProgress("topic", OffsetRange(number % 10, 0, 1000), "0" * 16, 500, 500, 10**8, 0))
    while time.monotonic() < end:
        time.sleep(REPORT_S)
        if is_loud:
            worker.log_event(_TOPIC, progress)


if __name__ == "__main__":
    main()
