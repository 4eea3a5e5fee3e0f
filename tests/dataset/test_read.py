"""A dataset that is opened holds what its ledger names, with the types of the alerts, and nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import fink_dask
from fink_dask.avro.schema import parse_schema
from fink_dask.compaction.compact import Caller, compact_dataset
from fink_dask.compaction.groups import Form
from fink_dask.compaction.task import Threads
from fink_dask.dataset.formats import KAFKA_FIELDS, Origin
from fink_dask.dataset.partitioning import resolve_partitioning
from fink_dask.dataset.writer import StagedWriter
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, publish
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker, Plan
from tests.harness.ledgers import IDENTITY, make_ledger, make_plan, places, stage_range, transfer

PLAN = make_plan([OffsetRange(0, 0, 25), OffsetRange(0, 25, 60), OffsetRange(3, 100, 130)])
TYPES = {
    "classId": (["long", "null"], pa.int64(), [2**53 + 1, -7, None, 2**53 + 1]),
    "flag": (["boolean", "null"], pa.bool_(), [True, False, None, True]),
    "seen": ({"type": "int", "logicalType": "date"}, pa.date32(), [20508, 20509, 20508, 0]),
    "score": ("float", pa.float32(), [0.1, 1e-7, float("inf"), -2.5]),
    "name": (["string", "null"], pa.string(), ["a/b=c d", "Étoile", None, "07"]),
}


def _found(dataset: ds.Dataset) -> list[tuple[int, int]]:
    table = dataset.to_table(columns=[field.name for field in KAFKA_FIELDS])
    return sorted(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def _made(outdir: Path) -> Ledger:
    ledger = make_ledger(outdir, PLAN)
    for offset_range in PLAN.ranges:
        transfer(ledger, PLAN, offset_range)
    return ledger


def test_every_alert_is_there_and_a_strangers_file_is_not(tmp_path: Path) -> None:
    ledger = _made(tmp_path / "alerts")
    directory = ledger.outdir / "class=class 0"
    some = next(path for path in ledger.outdir.rglob("*.parquet"))
    directory.mkdir()
    shutil.copy(some, directory / "copy.parquet")
    (some.parent / "half.parquet").write_bytes(some.read_bytes()[:200])
    (ledger.outdir / "notes.txt").write_text("mine")
    dataset = fink_dask.open_dataset(str(ledger.outdir))
    assert _found(dataset) == places(PLAN)
    assert dataset.schema.names == ["jd", "kafka_partition", "kafka_offset", "class"]
    assert dataset.to_table().schema == dataset.schema


def test_a_filter_on_a_partition_column_opens_only_its_files(tmp_path: Path) -> None:
    ledger = _made(tmp_path / "alerts")
    dataset = fink_dask.open_dataset(ledger.outdir)
    chosen = list(dataset.get_fragments(ds.field("class") == "class 1"))
    assert 0 < len(chosen) < len(list(dataset.get_fragments()))
    assert all("class=class%201/" in fragment.path for fragment in chosen)


def test_a_range_that_is_committed_but_not_published_is_left_out_whole(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    transfer(ledger, PLAN, PLAN.ranges[0])
    before = _found(fink_dask.open_dataset(ledger.outdir))
    attempt = Attempt(ledger, PLAN.ranges[1], PLAN.plan_id, lambda _: None)
    attempt.begin()
    marker = attempt.commit(stage_range(attempt, PLAN, PLAN.ranges[1]))
    # One of its files is in the dataset already, as when a transfer is killed between two renames.
    staging = ledger.attempt_path(marker.plan_id, marker.range, marker.attempt)
    first = marker.files[0]
    (ledger.outdir / first.path).parent.mkdir(exist_ok=True)
    (staging / first.staged).rename(ledger.outdir / first.path)
    assert _found(fink_dask.open_dataset(ledger.outdir)) == before
    publish(ledger, marker, lambda _: None)
    assert len(_found(fink_dask.open_dataset(ledger.outdir))) == len(before) + marker.rows


def test_a_dataset_without_an_alert_has_its_columns(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    dataset = fink_dask.open_dataset(ledger.outdir)
    assert (dataset.count_rows(), dataset.to_table().num_rows) == (0, 0)
    assert dataset.schema.names == ["jd", "kafka_partition", "kafka_offset", "class"]


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_dataset_that_lacks_a_file_is_refused(tmp_path: Path, damage: str) -> None:
    ledger = _made(tmp_path / "alerts")
    some = next(path for path in ledger.outdir.rglob("*.parquet"))
    if damage == "gone":
        some.unlink()
    else:
        some.write_bytes(some.read_bytes()[:-10])
    with pytest.raises(LedgerError, match=rf"\b1 file\b.*{some.name}"):
        fink_dask.open_dataset(ledger.outdir)


def test_a_directory_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=f"{tmp_path.name}.fink"):
        fink_dask.open_dataset(tmp_path)


def test_a_compacted_dataset_is_opened_alike(tmp_path: Path) -> None:
    source, target = _made(tmp_path / "alerts"), Ledger(tmp_path / "few")
    compact_dataset(source, target, Form(), Threads(1), Caller())
    before, after = fink_dask.open_dataset(source.outdir), fink_dask.open_dataset(target.outdir)
    assert after.schema == before.schema
    order = [(field.name, "ascending") for field in KAFKA_FIELDS]
    assert after.to_table().sort_by(order) == before.to_table().sort_by(order)


def _typed(outdir: Path) -> tuple[Ledger, pa.Table]:
    """Make a dataset that is partitioned by a column of each type."""
    fields = [{"name": name, "type": kind} for name, (kind, *_) in TYPES.items()]
    schema = parse_schema(json.dumps({"type": "record", "name": "alert", "fields": fields}))
    identity = replace(IDENTITY, partitionby=tuple(TYPES), schema_sha256=schema.fingerprint)
    plan = Plan(1, identity, (OffsetRange(0, 0, 4),), 1)
    ledger = make_ledger(outdir)
    ledger.freeze(plan, schema)
    columns = pa.schema([*schema.arrow, *KAFKA_FIELDS])
    values = {name: values for name, (_, _, values) in TYPES.items()}
    rows = pa.RecordBatch.from_pydict(
        {**values, "kafka_partition": [0] * 4, "kafka_offset": list(range(4))}, schema=columns
    )
    partitioning = resolve_partitioning(identity.partitionby, None, schema.arrow)
    file_schema = partitioning.file_schema(columns)
    attempt = Attempt(ledger, plan.ranges[0], plan.plan_id, lambda _: None)
    attempt.begin()
    with StagedWriter(attempt, file_schema, Origin(identity.topic, "", plan.ranges[0], plan.plan_id)) as writer:
        split = partitioning.split(rows)
        for directory, here in split.slices():
            writer.write(directory, rows.take(pa.array(split.order[here])).select(file_schema.names))
        writer.complete()
        files = writer.stage()
    marker = attempt.commit(Marker(plan.plan_id, plan.ranges[0], attempt.name, 4, 1, files))
    publish(ledger, marker, lambda _: None)
    return ledger, pa.Table.from_batches([rows])


def test_partition_columns_have_the_types_and_the_values_of_the_alerts(tmp_path: Path) -> None:
    ledger, rows = _typed(tmp_path / "alerts")
    dataset = fink_dask.open_dataset(ledger.outdir)
    assert {name: dataset.schema.field(name).type for name in TYPES} == {
        name: kind for name, (_, kind, _) in TYPES.items()
    }
    table = dataset.to_table().sort_by("kafka_offset")
    for name in TYPES:
        assert table[name].to_pylist() == rows[name].to_pylist()
    assert dataset.count_rows(filter=ds.field("classId") == 2**53 + 1) == 2
    assert dataset.count_rows(filter=ds.field("flag").is_null()) == 1
    assert dataset.count_rows(filter=ds.field("flag")) == 2


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fink_dask.no_such_name
