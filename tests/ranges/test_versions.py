"""Records of several schemas in a range: each decoded by its own, the same files whoever writes them and what dies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest

from fink_dask.avro.schema import parse_schema
from fink_dask.dataset.partitioning import NULL_KEY
from fink_dask.dataset.schema_versions import dataset_schema, known_versions
from fink_dask.errors import InterruptedTransferError, SettingsError
from fink_dask.kafka.inspect import open_inspector
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.planning.plan import Generations
from fink_dask.planning.prepare import freeze_plan, make_work, open_ranges, plan_next
from fink_dask.planning.schemas import inspect_topic
from fink_dask.ranges.task import transfer_range
from fink_dask.ranges.work import Work
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.verifying.against_kafka import compare_with_kafka
from fink_dask.verifying.files import verify_dataset
from tests.harness.crash import SOME_OR_EACH, run_until
from tests.harness.oracle import assert_exactly_once
from tests.harness.planned import plan_topic
from tests.harness.producer import produce
from tests.harness.topics import create_topic
from tests.harness.versions import OTHER, V1, V2, V3, Livestream, Schema, assert_rows, decode, key_of, read, with_more

#: The second and third schemas are where no sample sees them: neither first nor last in any partition.
HIDDEN = [V1] * 30 + [V1, V2, V1, OTHER, V3, V2] * 20 + [V1] * 30


def stream_of(kafka: Any, topic: str, schemas: Sequence[Schema], partitions: int = 2) -> Livestream:
    create_topic(kafka.bootstrap_servers, topic, partitions)
    stream = Livestream(kafka.bootstrap_servers, topic)
    stream.add(schemas)
    return stream


def digests(outdir: Path) -> dict[str, str]:
    """Hash all files of a dataset and of its quarantine; the names of plans, which hold their own, are left out."""
    paths = [*outdir.rglob("*.parquet"), *(outdir.with_name(f"{outdir.name}.fink") / "quarantine").iterdir()]
    return {str(path.relative_to(outdir.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def transfer_all(work: Sequence[Work]) -> None:
    for item in work:
        transfer_range(item.range, item.settings)


@pytest.mark.parametrize("partitionby", [(), ("time",), ("candidate.fid", "objectId")], ids=["none", "time", "two"])
@pytest.mark.parametrize("batchsize", [7, 1000])
def test_schemas_that_are_met_in_mid_range_are_read_by_their_own_programs(
    kafka: Any, topic_name: str, tmp_path: Path, partitionby: tuple[str, ...], batchsize: int
) -> None:
    stream = stream_of(kafka, topic_name, HIDDEN)
    options: dict[str, Any] = {"partitionby": partitionby, "batchsize": batchsize, "range_bytes": 10**6}
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "alerts", **options)
    assert work[0].settings.identity.more_schemas == ()
    transfer_all(work)
    ledger = Ledger(tmp_path / "alerts")
    table = read(ledger.outdir)
    replaced = ("objectId",) if "objectId" in partitionby else ()
    assert_rows(table, stream, stream.places(V1, V2, V3), replaced)
    if "objectId" in partitionby:
        for path in ledger.outdir.rglob("*.parquet"):
            fid, name = (unquote(level.partition("=")[2]) for level in path.relative_to(ledger.outdir).parts[:2])
            for row in pq.read_table(path, partitioning=None).to_pylist():
                schema, value = stream.sent[row["kafka_partition"], row["kafka_offset"]]
                assert decode(schema, value)["objectId"] == name
                assert row["candidate"]["fid"] == (None if fid == NULL_KEY else int(fid))
    assert verify_dataset(ledger).problems == ()
    assert verify_dataset(ledger).summary.quarantined == len(stream.places(OTHER))
    assert dataset_schema(ledger).equals(table.schema.remove_metadata())


@pytest.mark.parametrize(
    ("where", "is_wanted"),
    [
        ("candidate.fid == 1", lambda alert: alert["candidate"]["fid"] == 1),
        # Fields that some of the schemas lack: there they are null.
        ("score is null or score > 20", lambda alert: alert.get("score") is None or alert["score"] > 20),
        ("score < 20 and cutout is not null", lambda alert: alert.get("score") is not None and alert["score"] < 20),
    ],
)
@pytest.mark.parametrize("options", [{}, {"columns": ("candid",), "partitionby": ("time",)}], ids=["all", "some"])
def test_a_condition_is_asked_of_records_of_every_schema(
    kafka: Any, topic_name: str, tmp_path: Path, where: str, is_wanted: Callable[[Any], bool], options: dict[str, Any]
) -> None:
    # The third one is known from the beginning, the second one is met in mid-range.
    stream = stream_of(kafka, topic_name, [*[V3] * 3, *HIDDEN, *[V3] * 3])
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "alerts", where=where, batchsize=16, **options)
    assert len(work[0].settings.identity.each_schema) == 2
    transfer_all(work)
    ledger = Ledger(tmp_path / "alerts")
    good = stream.places(V1, V2, V3)
    wanted = {place for place in good if is_wanted(decode(*stream.sent[place]))}
    assert 0 < len(wanted) < len(good)
    found = verify_dataset(ledger)
    assert found.problems == ()
    assert (found.summary.alerts, found.summary.filtered) == (len(wanted), len(good) - len(wanted))
    assert found.summary.quarantined == len(stream.places(OTHER))
    if options:
        assert_exactly_once(ledger.outdir, wanted)
    else:
        assert_rows(read(ledger.outdir), stream, wanted)
    compared = compare_with_kafka(ledger, KafkaSettings(kafka.bootstrap_servers), 10_000)
    assert compared.problems == ()
    assert compared.equal == len(stream.sent)


def test_a_condition_on_what_no_schema_has_yet_is_refused(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    stream_of(kafka, topic_name, HIDDEN)
    with pytest.raises(SettingsError, match="no column score"):
        plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "alerts", where="score < 1")
    assert not list(tmp_path.iterdir())


def test_two_attempts_write_the_same_bytes_whatever_the_dataset_has_learnt_between_them(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    schemas = [*[V1] * 4, V2, OTHER, V2, *[V1] * 60, V3, V2, V3, *[V1] * 4]
    stream = stream_of(kafka, topic_name, schemas, partitions=1)
    options = {"range_bytes": 4000, "batchsize": 6}
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "alerts", **options)
    assert len(work) > 1
    first, ledger = work[0], work[0].settings.ledger
    written: list[list[str]] = []

    def lose(step: str) -> None:
        if step == "staged":
            (staging,) = ledger.staged()
            written.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(staging.iterdir())])
            raise InterruptedTransferError("killed")

    with pytest.raises(InterruptedTransferError):
        transfer_range(first.range, first.settings, step=lose)
    assert len(known_versions(ledger, first.settings.identity).schemas) == 2
    transfer_all(work[1:])
    assert len(known_versions(ledger, first.settings.identity).schemas) == 3
    with pytest.raises(InterruptedTransferError):
        transfer_range(first.range, first.settings, step=lose)
    assert len(written[0]) == 2  # alerts, and the quarantine
    assert written[0] == written[1]
    transfer_all(work)
    assert_rows(read(ledger.outdir), stream, stream.places(V1, V2, V3))


def transfer_as_a_job(bootstrap: str, topic: str, outdir: Path) -> None:
    """Plan, freeze and transfer in a plain loop, as a job that may be killed at any point, or goes on with another."""
    settings = TransferSettings(topic=topic, outdir=outdir, kafka=KafkaSettings(bootstrap), partitionby=("time",))
    ledger = Ledger(outdir)
    with open_inspector(settings.kafka) as inspector:
        target = inspect_topic(settings, inspector, ledger, fresh=False)
        assert target is not None
        create_ledger(ledger)
        with hold_lease(ledger):
            plans = ledger.plans()
            roll_forward(ledger, plans)
            plan = plan_next(settings, target, inspector, ledger, plans).plan
            if plan is not None:
                plans.append(freeze_plan(ledger, target, plan, Generations(plans), lambda _: None))
            transfer_all(make_work(settings, target, ledger, open_ranges(plans, ledger.markers(plans))))


@SOME_OR_EACH
def test_a_kill_after_any_operation_loses_and_repeats_nothing(
    kafka: Any, topic_name: str, tmp_path: Path, every: int
) -> None:
    # The second schema is taken in before the plan is frozen, the third one by the range that meets it.
    schemas = [*[V1] * 6, V2, V1, V3, OTHER, *[V1] * 6, V2]
    stream = stream_of(kafka, topic_name, schemas, partitions=1)
    expected: dict[str, str] = {}
    kills = 0
    for at in count(1, 2 * every):  # every other one: half of them are an fsync
        outdir = tmp_path / str(at) / "alerts"
        outdir.parent.mkdir()
        died = run_until(at, transfer_as_a_job, kafka.bootstrap_servers, topic_name, outdir)
        transfer_as_a_job(kafka.bootstrap_servers, topic_name, outdir)
        ledger = Ledger(outdir)
        found = verify_dataset(ledger)
        assert found.problems == ()
        assert found.summary.state == "partial"
        assert_rows(read(outdir), stream, stream.places(V1, V2, V3))
        assert not ledger.staged()
        made = {Path(name).name.rpartition("/")[2]: digest for name, digest in digests(outdir).items()}
        assert made == (expected := expected or made), f"another attempt after {at} operations wrote other bytes"
        if not died:
            break
        kills += 1
    assert kills * every > 20


def test_no_more_schemas_are_taken_in_than_there_may_be_and_the_others_are_set_aside(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    schemas = [with_more(V1, number) for number in range(40)]
    stream = stream_of(kafka, topic_name, [*[V1] * 5, *schemas, *[V1] * 5], partitions=1)
    outdir = tmp_path / "alerts"
    transfer_all(plan_topic(kafka.bootstrap_servers, topic_name, outdir, batchsize=3))
    # The first one and fifteen more.
    assert_rows(read(outdir), stream, stream.places(V1, *schemas[:15]))
    assert verify_dataset(Ledger(outdir)).summary.quarantined == 25


def test_keys_that_are_no_schema_are_said_to_be_none(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    stream = stream_of(kafka, topic_name, [V1] * 5, partitions=1)
    address, value = kafka.bootstrap_servers, next(iter(stream.sent.values()))[1]
    huge = key_of(V1 | {"doc": "x" * 5_000_000})
    keys = [None, b"", b"a name", b'{"a": 1}', b"{", b'{"type": "record"', b"{" * 5000, huge, key_of(V1)[:-1]]
    produce(address, topic_name, [value] * len(keys), keys=keys)
    stream.add([V1] * 5)
    outdir = tmp_path / "alerts"
    transfer_all(plan_topic(address, topic_name, outdir))
    assert_rows(read(outdir), stream, stream.sent)
    assert verify_dataset(Ledger(outdir)).summary.quarantined == len(keys)


def test_the_ledger_names_each_schema_and_the_plan_those_that_it_was_made_with(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream_of(kafka, topic_name, [V1, V2] * 20, partitions=1)
    outdir = tmp_path / "alerts"
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, outdir)
    names = [parse_schema(key_of(schema)).fingerprint for schema in (V1, V2)]
    identity = item.settings.identity
    assert [one.schema_sha256 for one in identity.each_schema] == names
    assert Ledger(outdir).plans()[0].identity == identity
    stored = {path.name for path in Ledger(outdir).path.glob("schema-*.avsc")}
    assert stored == {f"schema-{name[:16]}.avsc" for name in names}
