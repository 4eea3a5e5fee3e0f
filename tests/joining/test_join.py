"""Alerts are joined with the last predictions of each model, exactly once, however often that was cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from fink_dask.avro.predictions import SCHEMA as PREDICTION
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.formats import KAFKA_FIELDS, Origin
from fink_dask.dataset.read import open_dataset
from fink_dask.dataset.writer import StagedWriter
from fink_dask.errors import FinkDaskError, InterruptedTransferError, LedgerError, SchemaError
from fink_dask.joining import join as joining
from fink_dask.joining.join import join_datasets
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, publish
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Identity, Marker, Plan
from fink_dask.ledger.summary import summarise
from fink_dask.verifying.against_kafka import compare_with_kafka
from fink_dask.verifying.files import verify_dataset
from fink_dask.verifying.repair import run_repair
from tests.harness.crash import run_until
from tests.harness.ledgers import files_below

ALERT = parse_schema(
    '{"type": "record", "name": "alert", "fields": [{"name": "candid", "type": ["null", "long"]}, '
    '{"name": "class", "type": "string"}]}'
)
#: An identifier of ZTF, which 53 bits do not hold.
FIRST = 2891_0000_0000_0000_000
Said = tuple[int | None, str, float]


class Made:
    """A dataset in the making: each call adds a generation of one range for each partition."""

    def __init__(self, outdir: Path, schema: AvroSchema, *partitionby: str) -> None:
        self.ledger = Ledger(outdir)
        self._schema = schema
        self._identity = Identity(outdir.name, "id", partitionby, None, schema.fingerprint, "file")
        self._ends: dict[int, int] = {}
        create_ledger(self.ledger)

    def add(self, *partitions: Sequence[dict[str, Any]], bad: int = 0) -> None:
        """Add rows, and as many holes and filtered alerts as there are of each below."""
        extra = 2 * bad
        starts = [self._ends.get(number, 0) for number in range(len(partitions))]
        ranges = tuple(
            OffsetRange(number, start, start + len(rows) + extra)
            for number, (start, rows) in enumerate(zip(starts, partitions, strict=True))
            if rows or extra
        )
        plans = self.ledger.plans()
        plan = Plan(len(plans) + 1, self._identity, ranges, 100)
        self.ledger.freeze(plan, self._schema, [each.plan_id for each in plans])
        for offset_range in ranges:
            self._ends[offset_range.partition] = offset_range.end
            self._transfer(plan, offset_range, partitions[offset_range.partition], bad)

    def _transfer(self, plan: Plan, offset_range: OffsetRange, rows: Sequence[dict[str, Any]], bad: int) -> None:
        attempt = Attempt(self.ledger, offset_range, plan.plan_id, lambda _: None)
        attempt.begin()
        columns = [field for field in self._schema.arrow if field.name not in self._identity.partitionby]
        schema = pa.schema([*columns, *KAFKA_FIELDS])
        origin = Origin(self._identity.topic, "id", offset_range, plan.plan_id)
        with StagedWriter(attempt, schema, origin) as staged:
            for number, row in enumerate(rows):
                placed = row | {"kafka_partition": offset_range.partition, "kafka_offset": offset_range.start + number}
                directory = "/".join(f"{name}={row[name]}" for name in self._identity.partitionby)
                batch = pa.RecordBatch.from_pylist([{name: placed[name] for name in schema.names}], schema=schema)
                staged.write(directory, batch)
            staged.complete()
            files = staged.stage()
        holes = ((offset_range.end - bad, offset_range.end),) if bad else ()
        marker = Marker(
            plan.plan_id, offset_range, attempt.name, len(rows), 9, files, filtered=bad, holes=holes, newest_ms=5
        )
        publish(self.ledger, attempt.commit(marker), lambda _: None)


def alert(number: int | None) -> dict[str, Any]:
    return {"candid": None if number is None else FIRST + number, "class": f"class-{(number or 0) % 3}"}


def said(*predictions: Said) -> list[dict[str, Any]]:
    return [
        {"candid": FIRST + (number or 0), "model": model, "prediction": value} for number, model, value in predictions
    ]


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Made, Made]:
    """Alerts and predictions, in two partitions each and two generations.

    Alert 3 is there twice, one has no identifier, 4 has no prediction, and 7 has one of an alert that is not there.
    """
    alerts, predictions = Made(tmp_path / "alerts", ALERT, "class"), Made(tmp_path / "predictions", PREDICTION)
    alerts.add([alert(number) for number in (0, 1, 2, 3)], [alert(3), alert(None)], bad=1)
    alerts.add([], [alert(4), alert(5), alert(6)])
    predictions.add(said((0, "b", 0.1), (7, "a", 0.2), (1, "a", 0.3)), said((3, "a", 0.4), (5, "a", 0.5)))
    # The same model once more: the last one counts, of offsets and of partitions.
    predictions.add(said((0, "a", 0.6), (0, "b", 0.7), (2, "a", math.nan)), said((1, "a", 0.8), (6, "", 0.9)))
    return alerts, predictions


EXPECTED = {
    0: [("a", 0.6), ("b", 0.7)],
    1: [("a", 0.8)],
    2: [("a", None)],
    3: [("a", 0.4)],
    5: [("a", 0.5)],
    6: [("", 0.9)],
}
#: Alerts that are there twice.
TWICE = {3}


def rows_of(table: pa.Table) -> list[tuple[int, list[tuple[str, float | None]]]]:
    rows = table.select(["candid", "class", "model_predictions"]).to_pylist()
    assert all(row["class"] == alert(row["candid"] - FIRST)["class"] for row in rows)
    return sorted(
        (
            row["candid"] - FIRST,
            [(one["model"], None if math.isnan(one["prediction"]) else one["prediction"]) for one in found],
        )
        for row in rows
        for found in [row["model_predictions"]]
    )


def repeated(expected: dict[int, list[tuple[str, float | None]]]) -> list[tuple[int, list[Any]]]:
    return sorted((number, found) for number, found in expected.items() for _ in range(1 + (number in TWICE)))


def read(target: Ledger) -> list[tuple[int, list[tuple[str, float | None]]]]:
    """Read the directory as anybody does, whatever the ledger says."""
    files = files_below(target.outdir) if target.outdir.is_dir() else []
    return rows_of(pads.dataset(target.outdir, partitioning="hive").to_table()) if files else []


def test_each_alert_has_the_last_predictions_of_each_model_and_the_ledger_accounts_for_all_others(
    parts: tuple[Made, Made], tmp_path: Path
) -> None:
    alerts, predictions = (each.ledger for each in parts)
    target = Ledger(tmp_path / "joined")
    join_datasets(alerts, predictions, target)
    assert read(target) == rows_of(open_dataset(target.outdir).to_table()) == repeated(EXPECTED)
    found = verify_dataset(target)
    assert found.problems == ()
    assert (found.summary.state, found.summary.alerts, found.summary.filtered) == ("complete", 7, 2 + 2)
    assert {path.parent.name for path in files_below(target.outdir)} == {f"class=class-{number}" for number in range(3)}
    for call in (compare_with_kafka, run_repair):
        with pytest.raises(LedgerError, match=r"joined\.topics"):
            call(target, *[None] * (call.__code__.co_argcount - 1 - len(call.__defaults__ or ())))


def test_what_has_not_changed_is_left_alone_and_what_has_is_made_again(
    parts: tuple[Made, Made], tmp_path: Path
) -> None:
    alerts, predictions = parts
    target = Ledger(tmp_path / "joined")
    join_datasets(alerts.ledger, predictions.ledger, target)
    before = {path: path.stat().st_ino for path in [*files_below(target.outdir), *files_below(target.markers_path)]}
    join_datasets(alerts.ledger, predictions.ledger, target)
    again = {path: path.stat().st_ino for path in [*files_below(target.outdir), *files_below(target.markers_path)]}
    assert again == before
    predictions.add(said((4, "a", 1.0), (5, "c", 1.5)))  # both of the last range
    alerts.add([alert(7)])
    join_datasets(alerts.ledger, predictions.ledger, target)
    now = EXPECTED | {4: [("a", 1.0)], 5: [("a", 0.5), ("c", 1.5)], 7: [("a", 0.2)]}
    assert read(target) == repeated(now)
    assert verify_dataset(target).problems == ()
    assert sum(path in before for path in files_below(target.markers_path)) == 3
    assert len(files_below(target.markers_path)) == 3 + 2
    lost = files_below(target.outdir)[0]
    lost.unlink()
    join_datasets(alerts.ledger, predictions.ledger, target)
    assert read(target) == repeated(now)
    assert verify_dataset(target).problems == ()


@pytest.mark.parametrize(
    "every", [41, pytest.param(1, marks=pytest.mark.kills)], ids=["some operations", "each operation"]
)
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_operation_of_a_join(
    parts: tuple[Made, Made], tmp_path: Path, every: int
) -> None:
    alerts, predictions = parts
    before = count_of(repeated(EXPECTED))
    for after in count(1, every):
        target = Ledger(tmp_path / f"joined-{after}")
        killed = run_until(after, join_datasets, alerts.ledger, predictions.ledger, target)
        assert all(count_of(read(target))[key] <= times for key, times in before.items()), "an alert twice"
        run_until(1 + 7 * after % 60, join_datasets, alerts.ledger, predictions.ledger, target)
        join_datasets(alerts.ledger, predictions.ledger, target)
        assert read(target) == repeated(EXPECTED)
        assert verify_dataset(target).problems == ()
        if not killed:
            break
    assert after > 60


@pytest.mark.parametrize(
    "every", [41, pytest.param(1, marks=pytest.mark.kills)], ids=["some operations", "each operation"]
)
def test_no_alert_is_lost_or_doubled_by_a_kill_while_a_join_is_brought_up_to_date(
    parts: tuple[Made, Made], tmp_path: Path, every: int
) -> None:
    alerts, predictions = parts
    targets = []
    for after in count(1, every):
        targets.append(Ledger(tmp_path / f"joined-{after}"))
        join_datasets(alerts.ledger, predictions.ledger, targets[-1])
        if after > 100:
            break
    predictions.add(said(*((number, "z", 2.0) for number in EXPECTED)))
    expected = {number: [*found, ("z", 2.0)] for number, found in EXPECTED.items()}
    for after, target in zip(count(1, every), targets, strict=False):
        run_until(after, join_datasets, alerts.ledger, predictions.ledger, target)
        join_datasets(alerts.ledger, predictions.ledger, target)
        assert read(target) == repeated(expected)
        assert verify_dataset(target).problems == ()


def count_of(rows: Iterable[tuple[int, Any]]) -> dict[int, int]:
    found: dict[int, int] = dict.fromkeys(EXPECTED, 0)
    for number, _ in rows:
        found[number] += 1
    return found


def test_alerts_are_looked_for_in_groups_that_memory_holds(
    parts: tuple[Made, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts, predictions = parts
    monkeypatch.setattr(joining, "_ALERTS", 3)
    join_datasets(alerts.ledger, predictions.ledger, Ledger(tmp_path / "joined"))
    assert read(Ledger(tmp_path / "joined")) == repeated(EXPECTED)


def test_what_can_not_be_joined_is_refused_and_leaves_nothing(parts: tuple[Made, Made], tmp_path: Path) -> None:
    alerts, predictions = (each.ledger for each in parts)
    target = Ledger(tmp_path / "joined")
    with pytest.raises(InterruptedTransferError):
        join_datasets(alerts, predictions, target, should_stop=lambda: True)
    with pytest.raises(SchemaError, match="already"):
        join_datasets(target, predictions, Ledger(tmp_path / "twice"))
    other = Made(tmp_path / "others", ALERT)
    other.add([alert(1)])
    with pytest.raises(LedgerError, match="others"):
        join_datasets(other.ledger, predictions, target)
    without = parse_schema(ALERT.text.replace("candid", "diaSourceId"))
    lsst = Made(tmp_path / "lsst", without)
    lsst.add([{"diaSourceId": 1, "class": ""}])
    with pytest.raises(SchemaError, match="candid"):
        join_datasets(lsst.ledger, predictions, Ledger(tmp_path / "of-lsst"))
    file = files_below(alerts.outdir)[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(FinkDaskError, match=str(file)):
        join_datasets(alerts, predictions, Ledger(tmp_path / "of-damaged"))
    made = {path.name for path in tmp_path.iterdir()}
    assert not made & {"twice", "twice.fink", "of-lsst", "of-lsst.fink"}
    assert summarise(target).summary.state == "interrupted"
