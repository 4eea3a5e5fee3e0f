"""Plan and collect one generation after the other, as who follows a topic for months does, but in fast motion.

``python -m benchmarks.jobs.generations_job COUNT`` answers with one JSON object: the memory of this process, which
plans, collects and has the scheduler, after a tenth of the generations and after all of them. Each has one range, which
is committed already, so that a worker looks up its marker and is done.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fink_dask.avro.schema import parse_schema
from fink_dask.cluster.local import local_cluster
from fink_dask.dashboard.reporter import Reporter
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Identity, Marker, seal
from fink_dask.planning.plan import Generations, Sizing, next_plan
from fink_dask.progress.events import TransferStarted
from fink_dask.progress.tally import Progress
from fink_dask.ranges.work import TaskSettings, Work
from fink_dask.running.scheduling import run_ranges
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind, avro_schema

CONSUMERS = 2


def main() -> None:
    """Measure with as many generations as the command line says."""
    count = int(sys.argv[1])
    schema = parse_schema(json.dumps(avro_schema(AlertKind.ZTF_LIGHT)))
    identity = Identity("generations", "unknown", (), None, schema.fingerprint, "file")
    plans = Generations()
    memory: list[int] = []

    def more(waiting: int, running: int) -> Sequence[Work] | None:
        if waiting or running:
            return []
        if plans.count % (count // 10) == 0 and plans.count:
            gc.collect()
            memory.append(_memory_kib())
            print(f"{plans.count:,}: {memory[-1] / 1024:.1f} MB", file=sys.stderr)
        if plans.count == count:
            return None
        number = plans.count
        plan = next_plan(number + 1, identity, {0: (number, number + 1)}, Sizing(1, CONSUMERS, {0: 1.0}), None)
        assert plan is not None
        ledger.freeze(plan, schema, plans.ids)
        plans.add(plan)
        (offset_range,) = plan.ranges
        hole = ((offset_range.start, offset_range.end),)
        marker = Marker(plan.plan_id, offset_range, "0" * 16, rows=0, raw_bytes=0, files=(), holes=hole)
        ledger.marker_path(offset_range).write_bytes(seal("marker", marker.to_json()))
        settings = TaskSettings(ledger, KafkaSettings("127.0.0.1:1"), identity, plan.plan_id, Partitioning(()), 1000)
        return [Work(offset_range, settings)]

    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(Path(scratch) / "out")
        create_ledger(ledger)
        began = time.process_time()
        with local_cluster(CONSUMERS, CONSUMERS, "127.0.0.1:0") as cluster:
            progress = Progress()
            with Reporter(cluster.client, progress):
                progress(TransferStarted(identity.topic, 0, 0, 0, 0, None, {0: (0, 0)}))
                run_ranges(cluster, [], CONSUMERS, progress, lambda: None, more)
        used = time.process_time() - began
    early, late = memory[0], memory[-1]
    answer = {
        "generations": f"{count:,}",
        "memory after a tenth, in MB": round(early / 1024, 1),
        "memory after all, in MB": round(late / 1024, 1),
        "times as much": round(late / early, 3),
        "processor time of a generation, in ms": round(1e3 * used / count, 2),
    }
    print(json.dumps(answer))


def _memory_kib() -> int:
    """Read what this process holds now."""
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])


if __name__ == "__main__":
    main()
