"""Datasets of made-up alerts, night after night, without a Kafka to read them from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fink_dask.avro.schema import parse_schema
from fink_dask.dataset.formats import KAFKA_FIELDS, Origin
from fink_dask.dataset.writer import StagedWriter
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, publish
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Identity, Marker, Plan

Alert = dict[str, Any]


def arrow_schema(schema: Any) -> pa.Schema:
    """Return the columns of alerts of an Avro schema."""
    return parse_schema(json.dumps(schema)).arrow


def add_night(outdir: Path, schema: Any, alerts: pa.Table | Sequence[Alert], topic: str | None = None) -> Ledger:
    """Add alerts to the dataset of a topic, which is made if there is none: one range, one file, no directories.

    `topic`: the topic; by default the name of the directory.
    """
    parsed = parse_schema(json.dumps(schema))
    ledger = Ledger(outdir)
    create_ledger(ledger)
    earlier = ledger.plans() if ledger.exists() else []
    start = max((offset_range.end for plan in earlier for offset_range in plan.ranges), default=0)
    table = alerts if isinstance(alerts, pa.Table) else pa.Table.from_pylist(list(alerts), parsed.arrow)
    offset_range = OffsetRange(0, start, start + table.num_rows)
    name = topic or outdir.name
    identity = Identity(name, f"id of {name}", (), None, parsed.fingerprint, "file")
    plan = Plan(len(earlier) + 1, identity, (offset_range,), estimated_bytes=1000)
    ledger.freeze(plan, parsed, [each.plan_id for each in earlier])
    attempt = Attempt(ledger, offset_range, plan.plan_id, lambda _: None)
    attempt.begin()
    try:
        places = [
            pa.repeat(pa.scalar(0, pa.int32()), len(offset_range)),
            pa.array(range(offset_range.start, offset_range.end), pa.int64()),
        ]
        for field, values in zip(KAFKA_FIELDS, places, strict=True):
            table = table.append_column(field, values)
        with StagedWriter(
            attempt, table.schema, Origin(name, identity.topic_id, offset_range, plan.plan_id, 0)
        ) as writer:
            for batch in table.to_batches(max_chunksize=8192):
                writer.write("", batch)
            writer.complete()
            files = writer.stage()
        marker = attempt.commit(
            Marker(plan.plan_id, offset_range, attempt.name, len(offset_range), 100 * len(offset_range), files)
        )
        publish(ledger, marker, lambda _: None)
    finally:
        attempt.clean_up()
    return ledger
