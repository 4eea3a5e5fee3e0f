"""A topic whose records have their schema in the key, several schemas one after the other: as a user meets it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fink_dask.dataset.quarantine import read_quarantine
from fink_dask.dataset.schema_versions import dataset_schema
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.oracle import wait_for
from tests.harness.producer import produce, publish_schema
from tests.harness.running import Running
from tests.harness.topics import create_topic, delete_records_before
from tests.harness.versions import (
    OTHER,
    V1,
    V2,
    V3,
    Livestream,
    Schema,
    assert_rows,
    encode,
    fingerprint,
    key_of,
    make_alert,
    read,
    with_more,
)

pytestmark = [pytest.mark.following, pytest.mark.usefixtures("shared_dask")]

FOLLOW = ("--follow", "--roll-interval", "1s", "--idle-timeout", "5s", "-nconsumers", "3")


def stream_of(kafka: Any, topic: str, schemas: list[Schema], partitions: int = 4) -> Livestream:
    create_topic(kafka.bootstrap_servers, topic, partitions)
    stream = Livestream(kafka.bootstrap_servers, topic)
    stream.add(schemas)
    return stream


def reasons(ledger: Ledger) -> Counter[str]:
    found: Counter[str] = Counter()
    for marker in ledger.markers(ledger.plans()):
        for batch in [] if marker.quarantine is None else read_quarantine(ledger, marker.quarantine):
            found.update(batch["reason"].to_pylist())
    return found


def assert_verified(kafka: Any, outdir: Path, code: int = 0) -> None:
    """Hold the dataset against its ledger, and each record against Kafka, which fastavro reads."""
    more = ("--against-kafka", "--sample", "1000", "--bootstrap-servers", kafka.bootstrap_servers)
    found = run_cli("verify", str(outdir), *more)
    assert found.returncode == code, found.stdout + found.stderr


@pytest.mark.sample
def test_schemas_one_after_the_other_make_one_dataset_with_the_columns_of_all(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 100 + [V1, V2] * 60 + [V2] * 100 + [V3] * 20 + [V2] * 40)
    outdir = tmp_path / "alerts"
    arguments = transfer_arguments(kafka, topic_name, outdir, "-partitionby", "time")
    result = run_cli(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["alerts"] == len(stream.sent)
    assert_rows(read(outdir), stream, stream.sent)
    assert read(outdir).schema.remove_metadata().equals(dataset_schema(Ledger(outdir)))
    assert_verified(kafka, outdir)
    # Another schema still, and the same command.
    stream.add([V2, with_more(V2, 1)] * 50)
    again = run_cli(*arguments)
    assert again.returncode == 0, again.stderr
    assert "4 schemas" in again.stderr
    assert_rows(read(outdir), stream, stream.sent)
    assert_verified(kafka, outdir)
    assert run_cli(*arguments).returncode == 0
    assert run_cli(*arguments, "--restart", "--yes").returncode == 0
    assert_rows(read(outdir), stream, stream.sent)


def test_a_schema_that_changes_while_it_is_followed_costs_nothing(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 100)
    outdir = tmp_path / "alerts"
    running = Running(kafka, topic_name, outdir, *FOLLOW, "-batchsize", "1000")
    for schemas in ([V1] * 50, [V1, V2] * 100, [V2] * 50, [OTHER] * 5, [V3, V2] * 50):
        before = len(Ledger(outdir).plans())
        stream.add(schemas)
        wait_for(lambda before=before: running.is_over or len(Ledger(outdir).plans()) > before, "a generation")
    code, err = running.finish()
    assert code == 3, err
    assert_rows(read(outdir), stream, stream.places(V1, V2, V3))
    assert reasons(Ledger(outdir)).total() == 5
    assert len(Ledger(outdir).plans()[-1].identity.each_schema) >= 2
    assert_verified(kafka, outdir, 3)


def test_what_does_not_fit_is_set_aside_with_field_and_types_and_can_have_a_dataset_of_its_own(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 60 + [OTHER, V2] * 30 + [OTHER] * 40)
    outdir = tmp_path / "alerts"
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--dump-schemas"), cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert "--schema" in result.stderr
    assert_rows(read(outdir), stream, stream.places(V1, V2))
    ((reason, count),) = reasons(Ledger(outdir)).items()
    assert count == 70
    assert re.search(rf"\b{fingerprint(OTHER)[:16]}\b.*\bcandid\b.*string.*long", reason)
    assert_verified(kafka, outdir, 3)
    first, *_, file = sorted(tmp_path.glob("avro_schema_*"), key=lambda path: (len(path.name), path.name))
    assert first.name == f"avro_schema_{topic_name}.json"
    assert [json.loads(path.read_text()) for path in (first, file)] == [V1, OTHER]
    # The same records in a dataset of their own.
    own = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "own", "--schema", str(file)))
    assert own.returncode == 3, own.stderr
    assert_rows(read(tmp_path / "own"), stream, stream.places(OTHER))
    assert run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "own")).returncode == 3


def test_columns_and_partition_keys_may_come_from_any_of_the_schemas(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 40 + [V1, V2, V3] * 40 + [V2] * 40)
    outdir = tmp_path / "alerts"
    columns = "objectId,candidate.drb,origin"
    arguments = transfer_arguments(
        kafka, topic_name, outdir, "--columns", columns, "-partitionby", "finkclass,candidate.fid"
    )
    result = run_cli(*arguments)
    assert result.returncode == 0, result.stderr
    table = read(outdir)
    assert set(table.column_names) == {"objectId", "candidate", "origin", "kafka_partition", "kafka_offset"}
    assert [field.name for field in table.schema.field("candidate").type] == ["drb"]
    assert table.num_rows == len(stream.sent)
    names = {path.parent.parent.name for path in outdir.rglob("*.parquet")}
    assert {"finkclass=__HIVE_DEFAULT_PARTITION__", "finkclass=finkclass%201"} <= names
    for name in ("objectId", "origin"):
        assert_rows(read(outdir, name, "kafka_partition", "kafka_offset"), stream, stream.sent, list(full_names()))
    stream.add([V1, V2] * 10)
    assert run_cli(*arguments).returncode == 0
    assert_verified(kafka, outdir)


def full_names() -> set[str]:
    return {field["name"] for schema in (V1, V2, V3) for field in schema["fields"]}


def test_a_repair_fetches_files_of_all_schemas_and_the_schemas_themselves(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 60 + [V1, V2] * 60 + [V2] * 60)
    stream_of_more = [V1] * 30 + [V3] * 4 + [V1] * 30
    outdir = tmp_path / "alerts"
    arguments = transfer_arguments(kafka, topic_name, outdir, "-partitionby", "time")
    assert run_cli(*arguments).returncode == 0
    stream.add(stream_of_more)
    assert run_cli(*arguments).returncode == 0
    for path in sorted(outdir.rglob("*.parquet"))[::2]:
        path.unlink()
    ledger = Ledger(outdir)
    (ledger.path / f"schema-{fingerprint(V2)[:16]}.avsc").unlink()
    (ledger.path / f"schema-{fingerprint(V1)[:16]}.avsc").write_text("{}")
    assert run_cli("verify", str(outdir)).returncode == 1
    repaired = run_cli("repair", str(outdir), "--bootstrap-servers", kafka.bootstrap_servers)
    assert repaired.returncode == 0, repaired.stderr
    assert_rows(read(outdir), stream, stream.sent)
    assert_verified(kafka, outdir)
    # The list of schemas is written anew from the plan.
    (ledger.path / "versions" / "00000002.json").write_text("{}")
    assert "versions" in run_cli("verify", str(outdir)).stdout
    repaired = run_cli("repair", str(outdir), "--bootstrap-servers", kafka.bootstrap_servers)
    assert repaired.returncode == 0, repaired.stderr
    assert_verified(kafka, outdir)


def test_a_retry_brings_in_what_an_older_version_has_set_aside_with_all_columns(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fink_dask.errors import SchemaError
    from fink_dask.ranges import decode as grow
    from fink_dask.ranges.task import transfer_range
    from tests.harness.planned import plan_topic

    stream = stream_of(kafka, topic_name, [V1] * 30 + [V2, V1, OTHER, V3] * 20 + [V1] * 30, partitions=2)
    outdir = tmp_path / "alerts"

    def refuse(*_: Any) -> None:
        raise SchemaError("as it was before")

    with monkeypatch.context() as before:
        before.setattr(grow, "register", refuse)
        for item in plan_topic(kafka.bootstrap_servers, topic_name, outdir, partitionby=("time",)):
            transfer_range(item.range, item.settings)
    assert reasons(Ledger(outdir)).total() == 60
    retried = run_cli("quarantine", str(outdir), "--retry", "--json")
    assert retried.returncode == 3, retried.stderr
    assert json.loads(retried.stdout)["recovered"] == 40
    assert_rows(read(outdir), stream, stream.places(V1, V2, V3))
    assert_verified(kafka, outdir, 3)
    markers: list[Marker] = list(Ledger(outdir).markers(Ledger(outdir).plans()))
    assert {marker.revision for marker in markers} == {1}
    # A schema that does not fit is refused.
    (tmp_path / "other.avsc").write_text(json.dumps(OTHER))
    refused = run_cli("quarantine", str(outdir), "--retry", "--schema", str(tmp_path / "other.avsc"))
    assert refused.returncode == 1
    assert "field candid is a string" in refused.stderr


def test_records_without_a_key_are_read_with_the_schema_that_the_user_names(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 30 + [V2] * 30, partitions=1)
    alerts = [make_alert(V3, number) for number in range(7)]
    produce(kafka.bootstrap_servers, topic_name, [encode(V3, alert) for alert in alerts])
    outdir = tmp_path / "alerts"
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 3
    ((reason, count),) = reasons(Ledger(outdir)).items()
    assert ("key" in reason, count) == (True, 7)
    assert json.loads(run_cli("quarantine", str(outdir), "--retry", "--json").stdout)["recovered"] == 0
    (tmp_path / "third.avsc").write_text(json.dumps(V3))
    retried = run_cli("quarantine", str(outdir), "--retry", "--schema", str(tmp_path / "third.avsc"))
    assert retried.returncode == 0, retried.stderr
    rows = read(outdir).sort_by("kafka_offset").to_pylist()
    assert [row["score"] for row in rows] == [None] * len(stream.sent) + [alert["score"] for alert in alerts]
    assert run_cli("verify", str(outdir)).returncode == 0


def test_a_dataset_goes_on_when_kafka_no_longer_has_its_first_schema(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 40, partitions=1)
    outdir = tmp_path / "alerts"
    arguments = transfer_arguments(kafka, topic_name, outdir)
    assert run_cli(*arguments).returncode == 0
    stream.add([V2] * 40)
    delete_records_before(kafka.bootstrap_servers, topic_name, 0, 45)
    result = run_cli(*arguments)
    assert result.returncode == 3, result.stderr  # five are lost
    assert_rows(read(outdir), stream, {place for place in stream.sent if place[1] < 40 or place[1] >= 45})


@pytest.mark.parametrize("where", ["schema topic", "keys"])
def test_a_follower_waits_for_a_schema_that_is_not_there_yet(
    kafka: Any, topic_name: str, tmp_path: Path, where: str
) -> None:
    stream = stream_of(kafka, topic_name, [], partitions=2)
    outdir = tmp_path / "alerts"
    more = ("--follow", "--roll-interval", "1s", "--until-count", "60", "-batchsize", "1000")
    running = Running(kafka, topic_name, outdir, *more)
    running.wait_until_said("empty")
    produce(kafka.bootstrap_servers, topic_name, [encode(V1, make_alert(V1, 1))] * 20)
    waits = running.wait_until_said("schema")
    if where == "keys":
        stream.add([V1] * 40)
    else:
        publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(V1))
        stream.add([V1] * 40)
    code, err = running.finish()
    # Records without a key are none that a schema in a key speaks for.
    assert code == (3 if where == "keys" else 0), err
    assert err.count(waits) == 1
    assert read(outdir).num_rows == (40 if where == "keys" else 60)


def test_a_schema_that_never_comes_is_the_usual_error_in_the_end(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 2)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 10)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "alerts", "--follow", "--idle-timeout", "3s")
    result = run_cli(*arguments)
    assert result.returncode == 1
    _, error = [line for line in remarks(result.stderr) if "schema" in line]
    assert error.startswith("fink-dask: error: ")
    assert "--schema FILE" in error
    assert not (tmp_path / "alerts").exists()


def test_a_key_that_is_json_but_no_schema_does_not_hide_the_schema(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    stream = Livestream(kafka.bootstrap_servers, topic_name)
    produce(kafka.bootstrap_servers, topic_name, [b"x"] * 2, keys=[b'{"no": "schema"}', key_of(V1)[:-1]])
    stream.add([V1] * 20)
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"))
    assert result.returncode == 3, result.stderr
    assert_rows(read(tmp_path / "alerts"), stream, stream.sent)
