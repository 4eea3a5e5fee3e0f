"""What can't be decoded is shown, and tried again: what becomes an alert is in the dataset, exactly once."""

from __future__ import annotations

import json
import re
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.avro.reference import Transcoder
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.errors import SchemaError
from fink_dask.ledger.ledger import Ledger
from fink_dask.verifying.files import verify_dataset
from fink_dask.verifying.quarantine_retry import retry_quarantine
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.crash import SOME_OR_EACH, run_until
from tests.harness.oracle import places
from tests.harness.producer import Produced, produce, publish_schema
from tests.harness.topics import create_topic

pytestmark = pytest.mark.usefixtures("shared_dask")

SCHEMA = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "objectId", "type": "string"},
        {"name": "jd", "type": "double"},
        {"name": "note", "type": ["string", "null"]},
        {"name": "grade", "type": "int", "default": 7},
    ],
}
#: Another one, in another order, without the field that has a default, and with one that nobody asked for.
OTHER = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "extra", "type": {"type": "array", "items": "long"}},
        {"name": "jd", "type": "float"},
        {"name": "note", "type": "string"},
        {"name": "objectId", "type": "string"},
    ],
}


def encode(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return stream.getvalue()


def alert(number: int) -> dict[str, Any]:
    return {
        "objectId": f"ZTF{number:06d}",
        "jd": 2461095.5 + number % 3,
        "note": f"note {number}",
        "extra": [10**15 + number, -number],
    }


def fill(kafka: Any, topic: str) -> list[Produced]:
    """Publish 200 alerts of the schema, 60 of the other one, and 5 that are nothing."""
    address = kafka.bootstrap_servers
    create_topic(address, topic, 3)
    publish_schema(address, topic, json.dumps(SCHEMA))
    values: list[bytes | None] = [encode(SCHEMA, alert(number) | {"grade": number}) for number in range(200)]
    values += [encode(OTHER, alert(number)) for number in range(200, 260)]
    values += [b"", None, b"\xff" * 40, b"\x00", b"x" * 100]
    return produce(address, topic, values)


@pytest.fixture
def ledger(kafka: Any, topic_name: str, tmp_path: Path) -> Ledger:
    fill(kafka, topic_name)
    outdir = tmp_path / "alerts"
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir, "-partitionby", "jd"))
    assert result.returncode == 3, result.stderr
    return Ledger(outdir)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.avsc"
    path.write_text(json.dumps(OTHER))
    return path


def assert_recovered(ledger: Ledger) -> None:
    table = ds.dataset(ledger.outdir, partitioning="hive").to_table()
    found = {row["objectId"]: row for row in table.to_pylist()}
    assert len(found) == table.num_rows == 260
    for number in range(260):
        expected = alert(number)
        row = found[expected["objectId"]]
        assert (row["note"], row["grade"]) == (expected["note"], number if number < 200 else 7)
        assert float(row["jd"]) == expected["jd"]
    assert max(places(ledger.outdir).values()) == 1
    verified = verify_dataset(ledger)
    assert verified.problems == ()
    assert (verified.summary.alerts, verified.summary.quarantined, verified.summary.state) == (260, 5, "partial")
    files = list((ledger.path / "quarantine").iterdir())
    assert sum(pq.read_metadata(path).num_rows for path in files) == 5
    assert len({pq.read_schema(path).remove_metadata() for path in ledger.outdir.rglob("*.parquet")}) == 1


def test_records_are_shown_with_place_and_reason(ledger: Ledger) -> None:
    shown = run_cli("quarantine", str(ledger.outdir), "--limit", "3")
    assert shown.returncode == 0, shown.stderr
    assert "65 records" in shown.stdout
    assert "empty" in shown.stdout
    assert "62 more" in shown.stdout
    # A line each, which a pipe to grep finds whole.
    (head,) = (at for at, line in enumerate(shown.stdout.splitlines()) if line.startswith("partition"))
    assert all(line.split()[0].isdigit() for line in shown.stdout.splitlines()[head + 1 : -1])
    assert len(shown.stdout.splitlines()) == head + 1 + 3 + 1
    content = json.loads(run_cli("quarantine", str(ledger.outdir), "--limit", "100", "--json").stdout)
    assert content["quarantined"] == len(content["records"]) == sum(content["reasons"].values()) == 65
    assert {"partition", "offset", "time", "bytes", "reason"} == content["records"][0].keys()


def test_a_retry_with_the_schema_that_they_were_written_with_makes_them_alerts(ledger: Ledger, other: Path) -> None:
    # With the same schema nothing is any better, and nothing changes.
    again = run_cli("quarantine", str(ledger.outdir), "--retry", "--json")
    assert again.returncode == 3, again.stderr
    assert json.loads(again.stdout)["recovered"] == 0
    assert not ledger.staged()
    result = run_cli("quarantine", str(ledger.outdir), "--retry", "--schema", str(other))
    assert result.returncode == 3, result.stderr
    assert re.search(r"\b60 alerts.*\b5 records", result.stdout)
    assert_recovered(ledger)
    again = run_cli("quarantine", str(ledger.outdir), "--retry", "--schema", str(other))
    assert " 0 alerts" in again.stdout
    assert_recovered(ledger)


def _retry(ledger: Ledger) -> None:
    retry_quarantine(ledger, parse_schema(json.dumps(OTHER)), lambda _: None)


@SOME_OR_EACH
def test_a_retry_killed_after_any_operation_loses_and_repeats_nothing(ledger: Ledger, every: int) -> None:
    for after in count(1, max(3, every)):
        killed = run_until(after, _retry, ledger)
        assert max(places(ledger.outdir).values()) == 1
        assert set(verify_dataset(ledger).problems) <= set(_unpublished(ledger))
        if not killed:
            break
    assert after > 1
    assert_recovered(ledger)


def test_a_retry_filters_what_the_transfer_would_have_filtered_whatever_is_killed(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill(kafka, topic_name)
    ledger = Ledger(tmp_path / "alerts")
    where = ("--where", 'jd < 2461096 and note != "note 3"')
    assert run_cli(*transfer_arguments(kafka, topic_name, ledger.outdir, *where)).returncode == 3
    before = verify_dataset(ledger).summary
    assert (before.alerts, before.filtered, before.quarantined) == (66, 134, 65)
    for after in count(1, 4):
        if not run_until(after, _retry, ledger):
            break
        assert set(verify_dataset(ledger).problems) <= set(_unpublished(ledger))
    assert after > 1
    table = ds.dataset(ledger.outdir).to_table()
    assert sorted(table["note"].to_pylist()) == sorted(f"note {number}" for number in range(0, 260, 3) if number != 3)
    found = verify_dataset(ledger)
    summary = found.summary
    assert found.problems == ()
    assert (summary.alerts, summary.filtered, summary.quarantined) == (86, 174, 5)


def test_a_retry_says_how_many_the_condition_leaves_out(
    kafka: Any, topic_name: str, tmp_path: Path, other: Path
) -> None:
    fill(kafka, topic_name)
    outdir = tmp_path / "alerts"
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir, "--where", "grade != 7")).returncode == 3
    result = run_cli("quarantine", str(outdir), "--retry", "--schema", str(other))
    assert re.search(r"\b0 alerts.*\b60 .*\b5 records", result.stdout)
    assert verify_dataset(Ledger(outdir)).summary.filtered == 61


def _unpublished(ledger: Ledger) -> list[str]:
    return [problem for problem in verify_dataset(ledger).problems if "committed" in problem]


def test_what_is_asked_for_wrongly_is_one_line(kafka: Any, ledger: Ledger, tmp_path: Path, other: Path) -> None:
    (tmp_path / "bad.avsc").write_text('{"type": "array"}')
    for arguments, words, code in (
        (["--schema", str(other)], "--retry", 2),
        (["--retry", "--schema", str(tmp_path / "absent")], "absent", 2),
        (["--retry", "--schema", str(tmp_path / "bad.avsc")], "Avro schema", 1),
    ):
        result = run_cli("quarantine", str(ledger.outdir), *arguments)
        assert (result.returncode, len(remarks(result.stderr))) == (code, 1), result.stderr
        assert words in result.stderr
    assert run_cli("quarantine", str(tmp_path / "nothing")).returncode == 1
    failed = run_cli("quarantine", str(ledger.outdir), "--retry", "--schema", str(tmp_path / "bad.avsc"), "--json")
    found = json.loads(failed.stdout)
    assert found["state"] == "failed"
    assert remarks(failed.stderr) == [f"fink-dask: error: {found['error']}"]


def test_a_bad_record_can_be_made_a_failure(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill(kafka, topic_name)
    outdir = tmp_path / "alerts"
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--on-bad-record", "fail"))
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert f"{topic_name}[" in line
    assert "at offset" in line
    assert "decoded" in line
    assert places(outdir).total() == 0
    # The same command without it goes on.
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 3
    assert places(outdir).total() == 200


def test_a_quarantine_that_was_damaged_becomes_no_alert(ledger: Ledger, other: Path) -> None:
    for path in (ledger.path / "quarantine").iterdir():
        # Nothing but a value has changed: the file can be read, and its records can be decoded.
        table = pq.read_table(path)
        values = [value and value.replace(b"ZTF0002", b"ZTG0002") for value in table["value"].to_pylist()]
        assert values != table["value"].to_pylist()
        place = table.schema.get_field_index("value")
        pq.write_table(table.set_column(place, table.schema.field(place), pa.array(values, pa.binary())), path)
    result = run_cli("quarantine", str(ledger.outdir), "--retry", "--schema", str(other))
    assert result.returncode == 1
    assert "fink-dask repair" in result.stderr
    assert verify_dataset(ledger).summary.alerts == 200


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def decimal(scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (MILLIS, MICROS),
        ("long", MICROS),
        (MILLIS, "long"),
        (decimal(4), decimal(2)),
        ({"type": "array", "items": MILLIS}, {"type": "array", "items": MICROS}),
        ({"type": "map", "values": MILLIS}, {"type": "map", "values": MICROS}),
        (["null", MILLIS], [MICROS, "null"]),
    ],
)
def test_a_time_or_a_decimal_number_is_never_read_as_another_one(written: Any, wanted: Any) -> None:
    def schema(kind: Any) -> AvroSchema:
        inner = {"type": "record", "name": "inner", "fields": [{"name": "at", "type": kind}]}
        return parse_schema(
            json.dumps({"type": "record", "name": "alert", "fields": [{"name": "seen", "type": inner}]})
        )

    with pytest.raises(SchemaError, match=r"seen\.at"):
        Transcoder(schema(written), schema(wanted))
    Transcoder(schema(wanted), schema(wanted))
