"""Plan, submit and collect many ranges that hold nothing to read: what a range costs beside its alerts.

``python -m benchmarks.jobs.ranges_job COUNT`` answers with one JSON object. The ranges are committed already, so that
a worker looks up the marker of each and is done. Time and memory are those of this process, which plans and collects,
and has the scheduler. Afterwards the transfer is begun once more, as somebody does who continues it: every marker is
read, and every file looked at. ``COUNT WORKERS`` simulates a cluster of so many workers of one thread: they are in this
process, so that its time and memory are those of all of them.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from fink_dask.avro.schema import parse_schema
from fink_dask.cluster.local import DASK_CONFIG, Cluster, local_cluster
from fink_dask.dashboard.reporter import Reporter
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import DataFile, Identity, Marker, Plan, seal
from fink_dask.planning.plan import Sizing, next_plan
from fink_dask.planning.topic import TopicTransfer
from fink_dask.progress.events import TransferStarted
from fink_dask.progress.tally import Progress
from fink_dask.ranges.memory import FULL_SHARE
from fink_dask.ranges.work import TaskSettings, Work
from fink_dask.running.scheduling import run_ranges
from fink_dask.settings import KafkaSettings, TransferSettings
from tests.alerts.made_up import AlertKind, avro_schema

PARTITIONS = 10
CONSUMERS = 2
_IDLE_S = 5.0


def main() -> None:
    """Measure with as many ranges as the command line says."""
    count = int(sys.argv[1])
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else None
    consumers = workers or CONSUMERS
    schema = parse_schema(json.dumps(avro_schema(AlertKind.ZTF_LIGHT)))
    identity = Identity("ranges", "unknown", (), None, schema.fingerprint, "file")
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(Path(scratch) / "out")
        create_ledger(ledger)
        began = time.perf_counter()
        spans = dict.fromkeys(range(PARTITIONS), (0, count // PARTITIONS))
        plan = next_plan(1, identity, spans, Sizing(1, consumers, dict.fromkeys(spans, 1.0)), None)
        assert plan is not None
        assert len(plan.ranges) == count
        ledger.freeze(plan, schema)
        planned = time.perf_counter() - began
        _commit(ledger, plan)
        settings = TaskSettings(ledger, KafkaSettings("127.0.0.1:1"), identity, plan.plan_id, Partitioning(()), 1000)
        with local_cluster(CONSUMERS, count, "127.0.0.1:0") if workers is None else _simulated(workers) as cluster:
            idle = _idle_share()
            began = time.perf_counter()
            work = [Work(offset_range, settings) for offset_range in plan.ranges]
            before = _peak_mb()
            used = time.process_time()
            progress = Progress()
            with Reporter(cluster.client, progress):
                progress(TransferStarted(identity.topic, count, 0, count, 0, None, dict.fromkeys(spans, (0, 0))))
                run_ranges(cluster, work, consumers, progress, lambda: None)
            collected, used = time.perf_counter() - began, time.process_time() - used
        peak = _peak_mb()
        resumed, used_resuming = _resume(ledger)
        bytes_of_plan = sum(path.stat().st_size for path in ledger.plans_path.iterdir())
        bytes_of_markers = sum(path.stat().st_size for path in ledger.markers_path.iterdir())
    answer = {
        "ranges": f"{count:,}",
        "plan, in s": round(planned, 2),
        "submit and collect, in s": round(collected, 1),
        "processor time of a range, in ms": round(1e3 * used / count, 2),
        "memory before, in MB": round(before),
        "memory at its peak, in MB": round(peak),
        "plan, in MB": round(bytes_of_plan / 1e6, 1),
        "markers, in MB": round(bytes_of_markers / 1e6, 1),
        "resume, in s": round(resumed, 2),
        "processor time of a resume, in s": round(used_resuming, 2),
    }
    if workers is not None:
        answer |= {"workers": f"{workers:,}", "of that for idle workers, in s": round(idle * collected, 1)}
    print(json.dumps(answer))


@contextmanager
def _simulated(workers: int) -> Iterator[Cluster]:
    """Start a real scheduler, and workers in this process."""
    # Each worker would ask twice a second what this process takes, which would be a fifth of what it takes.
    quiet = {"distributed.admin.system-monitor.interval": "1 minute"}
    with (
        dask.config.set(DASK_CONFIG | quiet),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        assert len(client.nthreads()) == workers
        # Nor would anybody look for garbage among what 200 workers hold.
        gc.freeze()
        yield Cluster(client, FULL_SHARE)


def _commit(ledger: Ledger, plan: Plan) -> None:
    """Write the marker of each range, and a file."""
    for offset_range in plan.ranges:
        rows = len(offset_range)
        file = DataFile(f"part-{offset_range.name}.parquet", "00000.parquet", rows, 0, "0" * 64)
        (ledger.outdir / file.path).touch()
        marker = Marker(plan.plan_id, offset_range, "0" * 16, rows=rows, raw_bytes=rows, files=(file,))
        ledger.marker_path(offset_range).write_bytes(seal("marker", marker.to_json()))


def _resume(ledger: Ledger) -> tuple[float, float]:
    """Begin a transfer once more: seconds, and processor time."""
    settings = TransferSettings("ranges", ledger.outdir, KafkaSettings("127.0.0.1:1"))
    began, used = time.perf_counter(), time.process_time()
    transfer = TopicTransfer(settings, lambda _: None, Progress())
    transfer.begin()
    took = time.perf_counter() - began, time.process_time() - used
    transfer.end()
    return took


def _idle_share() -> float:
    """Return what the cluster takes of a core while there is nothing to do."""
    began = time.process_time()
    time.sleep(_IDLE_S)
    return (time.process_time() - began) / _IDLE_S


def _peak_mb() -> float:
    """Read the peak of this program; what getrusage says begins with that of the program which has started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
