"""Have many ranges report how far they are: what a report costs the scheduler and the client.

``python -m benchmarks.jobs.reports_job RANGES`` answers with one JSON object. Workers, scheduler and client are in this
process, and nothing is read. Up to 50 workers report as often as so many ranges do: of more ranges, each worker speaks
for several. What the same cluster takes while nobody reports is subtracted.
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
from fink_dask.cluster.worker import report_interval_s
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeProgress

SECONDS = 20.0
_WORKERS = 50
_TOPIC = "fink-dask-progress-benchmark"


def main() -> None:
    """Measure with as many ranges as the command line says."""
    ranges, heard = int(sys.argv[1]), 0
    workers = min(ranges, _WORKERS)
    interval_s = report_interval_s(ranges) * workers / ranges

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
        idle = _run(client, workers, interval_s, False)
        used = _run(client, workers, interval_s, True) - idle
    answer = {
        "ranges": ranges,
        "reports a second": round(heard / SECONDS),
        "processor time of a report, in ms": round(1e3 * used / max(1, heard), 2),
        "share of a core": round(used / SECONDS, 2),
    }
    print(json.dumps(answer))


def _run(client: Client, workers: int, interval_s: float, is_loud: bool) -> float:
    """Keep all workers busy for a while; returns the processor time of that."""
    began = time.process_time()
    client.gather(client.map(_work, range(workers), interval_s=interval_s, is_loud=is_loud, pure=False))
    return time.process_time() - began


def _work(number: int, interval_s: float, is_loud: bool) -> None:
    worker, end = get_worker(), time.monotonic() + SECONDS
    progress = asdict(RangeProgress("topic", OffsetRange(number % 10, 0, 1000), "0" * 16, 500, 500, 10**8, 0))
    while time.monotonic() < end:
        time.sleep(interval_s)
        if is_loud:
            worker.log_event(_TOPIC, progress)


if __name__ == "__main__":
    main()
