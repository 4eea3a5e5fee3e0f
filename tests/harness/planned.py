"""A frozen plan, ready for `transfer_range` in a plain loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fink_dask.kafka.inspect import open_inspector
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.planning.plan import Generations
from fink_dask.planning.prepare import freeze_plan, make_work, open_ranges, plan_next
from fink_dask.planning.schemas import inspect_topic
from fink_dask.ranges.work import Work
from fink_dask.settings import KafkaSettings, TransferSettings


def plan_topic(bootstrap: str, topic: str, outdir: Path, **settings: Any) -> list[Work]:
    """Plan everything that a topic holds, as a job does, and return its ranges."""
    asked = TransferSettings(topic=topic, outdir=outdir, kafka=KafkaSettings(bootstrap), **settings)
    ledger = Ledger(asked.outdir)
    with open_inspector(asked.kafka, window=asked.window) as inspector:
        target = inspect_topic(asked, inspector, ledger, fresh=False)
        assert target is not None
        create_ledger(ledger)
        plan = plan_next(asked, target, inspector, ledger, ledger.plans()).plan
        assert plan is not None
        plan = freeze_plan(ledger, target, plan, Generations(), lambda _: None)
    work = make_work(asked, target, ledger, open_ranges([plan], ledger.markers([plan])))
    # Small batches stay small here, so that few alerts make many.
    common = replace(work[0].settings, min_batch_bytes=0)
    return [replace(item, settings=common) for item in work]
