"""What a second command finds and does: growth, limits, other settings, a new beginning, a topic made anew."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, TopicPartition

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.existing import Scheduler
from fink_dask.errors import BrokerError, FinkDaskError, LedgerError, SettingsError
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import Lag, Summary, read_lag, write_lag
from fink_dask.progress.events import Event, Note, TransferStarted
from fink_dask.progress.tally import Progress
from fink_dask.running.run import run_transfer
from fink_dask.settings import FollowSettings, KafkaSettings, TransferSettings
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.oracle import add_alerts, assert_exactly_once, fill_topic, places
from tests.harness.planned import plan_topic
from tests.harness.producer import open_transaction, produce, produce_transaction
from tests.harness.topics import (
    PATIENCE_S,
    create_topic,
    delete_records_before,
    delete_topic,
    remove_topics,
    topic_names,
)

pytestmark = pytest.mark.usefixtures("shared_dask")

LIGHT = AlertKind.ZTF_LIGHT


class Notes:
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.texts.append(event.text)

    def __contains__(self, words: object) -> bool:
        return any(str(words) in text for text in self.texts)


@pytest.fixture(autouse=True)
def where(dask_scheduler: str) -> Iterator[None]:
    """Run on a scheduler that is there already: twenty transfers need not start one each."""
    WHERE.append(ClusterChoice(scheduler=Scheduler(dask_scheduler)))
    yield
    WHERE.clear()


WHERE: list[ClusterChoice] = []


def transfer(kafka: Any, topic: str, outdir: Path, restart: bool = False, **settings: Any) -> tuple[Summary, Notes]:
    notes = Notes()
    asked = TransferSettings(
        topic=topic, outdir=outdir, kafka=KafkaSettings(kafka.bootstrap_servers), nconsumers=2, **settings
    )
    return run_transfer(asked, Progress(notes), WHERE[0], restart).summary, notes


def test_what_came_since_is_fetched_and_nothing_else(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 500, partitions=3)
    transfer(kafka, topic_name, tmp_path / "out", partitionby=("time",))
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 300, seed=9, first_id=10_000)
    summary, notes = transfer(kafka, topic_name, tmp_path / "out", partitionby=("time",))
    assert (summary.state, summary.alerts, summary.run_alerts) == ("complete", 800, 300)
    assert "--follow" not in notes
    assert_exactly_once(tmp_path / "out", oracle.values)
    assert first.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}.items()
    ledger = Ledger(tmp_path / "out")
    write_lag(ledger, Lag(time.time(), {0: 0}))
    again, notes = transfer(kafka, topic_name, tmp_path / "out", partitionby=("time",))
    assert (again.run_alerts, "nothing new" in notes) == (0, True)
    assert read_lag(ledger, 1000) is None, "status says that it was followed, and this run did not"


def test_a_topic_that_grows_meanwhile_is_said_to_be_incomplete_and_follow_is_named(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=1)
    planned = dict(oracle.values)

    class GrowingNotes(Notes):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, TransferStarted) and len(oracle.values) == 200:
                add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 50, seed=3, first_id=5000)

    notes = GrowingNotes()
    asked = TransferSettings(topic=topic_name, outdir=tmp_path / "out", kafka=KafkaSettings(kafka.bootstrap_servers))
    summary = run_transfer(asked, Progress(notes), WHERE[0]).summary
    assert summary.alerts == 200
    assert "50 records" in notes
    assert "--follow" in notes
    assert_exactly_once(tmp_path / "out", planned)


def test_a_restart_does_not_put_another_topic_in_the_place_of_the_first(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    other = f"{topic_name}_other"
    fill_topic(kafka.bootstrap_servers, other, LIGHT, 50, partitions=1)
    arguments = transfer_arguments(kafka, other, tmp_path / "out", "--restart", "--yes")
    said = [run_cli(*arguments).stderr, run_cli(*arguments[:-1]).stderr]  # the second one would ask
    with pytest.raises(LedgerError) as refused:
        transfer(kafka, other, tmp_path / "out", restart=True)
    for words in (*said, str(refused.value)):
        assert words.count(topic_name) > words.count(other) > 0, "it names both, and one name begins with the other"
    assert_exactly_once(tmp_path / "out", oracle.values)
    delete_topic(kafka.bootstrap_servers, other)


@pytest.mark.parametrize("limit", [1, 137, 499, 500, 10_000])
def test_a_limit_takes_exactly_that_many_alerts_or_all_there_are(
    kafka: Any, topic_name: str, tmp_path: Path, limit: int
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 500, partitions=3)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out", limit=limit)
    assert (summary.state, summary.alerts) == ("complete", min(limit, 500))
    assert summary.limit == (limit if limit < 500 else None), "nobody is told that there is more"
    found = places(tmp_path / "out")
    assert found.total() == len(found) == min(limit, 500)
    assert sorted(found) == sorted(oracle.values)[: len(found)], "the limit takes alerts in plan order"


def test_a_limit_counts_alerts_not_offsets_and_can_be_raised_but_not_lowered(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 100, partitions=1)
    # A third of what follows is no alert: holes of an aborted transaction, and poison.
    values = list(oracle.values.values())
    produce_transaction(kafka.bootstrap_servers, topic_name, values[:40], commit=False)
    produce(kafka.bootstrap_servers, topic_name, [b"poison"] * 10)
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 100, seed=5, first_id=3000)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out", limit=150)
    assert summary.alerts == 150
    again, notes = transfer(kafka, topic_name, tmp_path / "out", limit=150)
    assert (again.alerts, again.run_alerts, "nothing new" in notes) == (150, 0, True)
    more, _ = transfer(kafka, topic_name, tmp_path / "out", limit=160)
    assert more.alerts == 160
    with pytest.raises(SettingsError, match=r"--limit 20\b.* 160\b"):
        transfer(kafka, topic_name, tmp_path / "out", limit=20)
    full, _ = transfer(kafka, topic_name, tmp_path / "out")
    assert (full.alerts, full.quarantined, full.state, full.exit_code) == (200, 10, "partial", 3)
    assert_exactly_once(tmp_path / "out", oracle.values)


def test_an_open_transaction_is_waited_for_by_a_later_run_and_an_aborted_one_never_arrives(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    values = list(oracle.values.values())
    pending = open_transaction(kafka.bootstrap_servers, topic_name, values[:5])
    summary, _ = transfer(kafka, topic_name, tmp_path / "out")
    assert summary.alerts == 50
    committed = pending.commit()
    produce_transaction(kafka.bootstrap_servers, topic_name, values[:7], commit=False)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out")
    assert (summary.state, summary.alerts) == ("complete", 55)
    assert_exactly_once(tmp_path / "out", [*oracle.values, *((r.partition, r.offset) for r in committed)])


@pytest.mark.parametrize("follow", [None, FollowSettings(until_count=70)], ids=["once", "follow"])
@pytest.mark.parametrize("outformat", ["parquet", "avro"])
def test_a_dataset_goes_on_as_it_was_begun_though_nothing_of_that_is_given_again(
    kafka: Any, topic_name: str, tmp_path: Path, outformat: str, follow: FollowSettings | None
) -> None:
    bootstrap, outdir = kafka.bootstrap_servers, tmp_path / "out"
    columns = {} if outformat == "avro" else {"columns": ("objectId", "candid")}
    begun = {"partitionby": ("time", "fid"), "where": "jd > 0", "outformat": outformat, "survey": "ztf", **columns}
    oracle = fill_topic(bootstrap, topic_name, LIGHT, 50, partitions=2)
    # As if everything had been killed: the plan is frozen, and nothing is committed.
    work = plan_topic(bootstrap, topic_name, outdir, **begun)
    add_alerts(bootstrap, topic_name, oracle, LIGHT, 20, seed=9, first_id=900)
    summary, _ = transfer(kafka, topic_name, outdir, follow=follow)
    assert (summary.state, summary.alerts) == ("complete", 70)
    assert_exactly_once(outdir, oracle.values)
    assert {plan.identity for plan in Ledger(outdir).plans()} == {work[0].settings.identity}
    files = [path.relative_to(outdir) for path in outdir.rglob(f"*.{outformat}")]
    assert {str(path.parts[0])[:5] + path.parts[3][:4] for path in files} == {"year=fid="}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (AlertKind.LSST_FULL, "finkclass"),
        (AlertKind.LSST_LIGHT, "tnsclass"),
        (LIGHT, "classId"),
        (AlertKind.ZTF_FULL, "classId"),
    ],
)
def test_a_class_that_the_alerts_lack_falls_back_to_time_and_the_ledger_has_both(
    kafka: Any, topic_name: str, tmp_path: Path, kind: AlertKind, name: str
) -> None:
    bootstrap, outdir = kafka.bootstrap_servers, tmp_path / "out"
    oracle = fill_topic(bootstrap, topic_name, kind, 20, partitions=2)
    survey = "lsst" if "lsst" in kind.value else "ztf"
    # As if everything had been killed: the plan is frozen, and nothing is committed.
    plan_topic(bootstrap, topic_name, outdir, partitionby=(name,), survey=survey)
    begun = Ledger(outdir).begun_with()
    assert (begun.partitionby_asked, begun.partitionby, begun.survey) == ((name,), ("time",), survey)
    for number, again in enumerate(({"partitionby": (name,)}, {}, {"partitionby": ("time",)})):
        if number:
            add_alerts(bootstrap, topic_name, oracle, kind, 5, seed=number, first_id=1000 * number)
        summary, notes = transfer(kafka, topic_name, outdir, **again)
        assert (summary.state, any(re.search(rf"{name}.*\btime\b", text) for text in notes.texts)) == ("complete", True)
    assert_exactly_once(outdir, oracle.values)
    assert all(path.name.startswith("year=") for path in outdir.iterdir())
    assert {plan.identity for plan in Ledger(outdir).plans()} == {begun}


@pytest.mark.parametrize(
    ("partitionby", "survey", "words"),
    [
        (("classid",), "ztf", "--partitionby classid"),
        (("classId", "fid"), "ztf", "--partitionby classId"),
        (("classId",), "lsst", "--partitionby classId"),  # and no time of this survey
    ],
)
def test_any_other_column_that_there_is_not_stays_an_error(
    kafka: Any, topic_name: str, tmp_path: Path, partitionby: tuple[str, ...], survey: str, words: str
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 5, partitions=1)
    with pytest.raises(FinkDaskError, match=words):
        transfer(kafka, topic_name, tmp_path / "out", partitionby=partitionby, survey=survey)
    assert not list(tmp_path.iterdir())


def test_a_dataset_whose_schema_came_from_a_file_goes_on_without_the_file(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    (tmp_path / "schema.json").write_text(json.dumps(avro_schema(LIGHT) | {"doc": "another one"}))
    transfer(kafka, topic_name, tmp_path / "out", schema_file=tmp_path / "schema.json")
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 20, seed=9, first_id=900)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out")
    assert (summary.state, summary.alerts) == ("complete", 70)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"partitionby": ("finkclass",)}, "begun with --partitionby time, not finkclass"),
        ({"partitionby": ()}, "begun with --partitionby time, not none"),
        ({"survey": "lsst"}, "begun with --survey ztf, not lsst"),
    ],
)
def test_going_on_with_other_settings_is_refused_by_name(
    kafka: Any, topic_name: str, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out", partitionby=("time",))
    with pytest.raises(FinkDaskError, match=words):
        transfer(kafka, topic_name, tmp_path / "out", **{"partitionby": ("time",), **change})


def test_another_topic_or_another_schema_is_not_mixed_in(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    other = f"{topic_name}9"
    fill_topic(kafka.bootstrap_servers, other, LIGHT, 50, partitions=1)
    with pytest.raises(SettingsError, match=f"--topic {topic_name}, not {other}"):
        transfer(kafka, other, tmp_path / "out")
    changed = avro_schema(LIGHT) | {"doc": "another one"}
    (tmp_path / "schema.json").write_text(json.dumps(changed))
    with pytest.raises(LedgerError, match="schema"):
        transfer(kafka, topic_name, tmp_path / "out", schema_file=tmp_path / "schema.json")
    remove_topics(kafka.bootstrap_servers, other)


def test_a_topic_made_anew_under_the_same_name_is_refused(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    remove_topics(kafka.bootstrap_servers, topic_name)
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 80, partitions=1)
    with pytest.raises(LedgerError, match="deleted"):
        transfer(kafka, topic_name, tmp_path / "out")


def test_a_transfer_can_go_on_after_its_schema_topic_has_expired(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    delete_topic(kafka.bootstrap_servers, f"{topic_name}_schema")
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 50, first_id=900)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out")
    assert (summary.state, summary.alerts) == ("complete", 100)


def test_a_restart_replaces_the_dataset_and_deletes_the_old_one_only_when_complete(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=2)
    transfer(kafka, topic_name, tmp_path / "out", partitionby=("time",))
    with pytest.raises(FinkDaskError, match="--partitionby nothing"):
        transfer(kafka, topic_name, tmp_path / "out", restart=True, partitionby=("nothing",))
    assert_exactly_once(tmp_path / "out", oracle.values)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out", restart=True, partitionby=("finkclass",))
    assert (summary.state, summary.alerts) == ("complete", 200)
    assert_exactly_once(tmp_path / "out", oracle.values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.fink"]
    assert all("finkclass=" in path.name for path in (tmp_path / "out").iterdir())


def test_a_dataset_whose_files_were_removed_is_never_called_complete(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=2)
    transfer(kafka, topic_name, tmp_path / "out")
    victim = next((tmp_path / "out").rglob("*.parquet"))
    victim.unlink()
    with pytest.raises(LedgerError, match=rf"\b1 file.*{victim.name}"):
        transfer(kafka, topic_name, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(LedgerError, match=r"\b2 files"):
        transfer(kafka, topic_name, tmp_path / "out")


def test_a_restart_never_deletes_alerts_that_kafka_holds_no_more(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    delete_records_before(kafka.bootstrap_servers, topic_name, 0, 150)
    summary, notes = transfer(kafka, topic_name, tmp_path / "out", restart=True)
    assert (summary.state, summary.alerts) == ("partial", 50)
    (aside,) = tmp_path.glob("out.fink-old-*")
    assert aside in notes
    assert places(aside / "out").total() == 200
    delete_records_before(kafka.bootstrap_servers, topic_name, 0, 200)
    (tmp_path / "schema.json").write_text(json.dumps(avro_schema(LIGHT)))
    with pytest.raises(BrokerError, match="200 offsets"):
        transfer(kafka, topic_name, tmp_path / "out", restart=True, schema_file=tmp_path / "schema.json")
    assert places(tmp_path / "out").total() == 50


def test_a_restart_asks_first_and_a_no_changes_nothing(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--restart")
    refused = run_cli(*arguments, stdin="n\n")
    assert refused.returncode == 1
    assert "Replace the dataset" in refused.stderr
    unanswered = run_cli(*arguments)
    assert (unanswered.returncode, "give --yes" in unanswered.stderr.splitlines()[-1]) == (2, True)
    assert_exactly_once(tmp_path / "out", oracle.values)
    accepted = run_cli(*arguments, "--yes")
    assert accepted.returncode == 0, accepted.stderr
    assert_exactly_once(tmp_path / "out", oracle.values)


def test_a_restart_with_a_ledger_that_is_damaged_asks_as_well(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    ledger = Ledger(tmp_path / "out")
    (plan,) = ledger.plans_path.iterdir()
    plan.write_text("torn")
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--restart")
    refused = run_cli(*arguments, stdin="n\n")
    assert refused.returncode == 1
    assert "unknown" in refused.stderr
    assert plan.read_text() == "torn"
    accepted = run_cli(*arguments, stdin="y\n")
    assert accepted.returncode == 0, accepted.stderr
    assert_exactly_once(tmp_path / "out", oracle.values)


def test_group_offsets_are_committed_at_the_end_for_other_tools(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 100, partitions=2)
    group = f"{topic_name}-group"
    transfer(kafka, topic_name, tmp_path / "out", group_id=group)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    found = consumer.committed([TopicPartition(topic_name, partition) for partition in range(2)], timeout=PATIENCE_S)
    consumer.close()
    ends = {p: max(offset for partition, offset in oracle.values if partition == p) + 1 for p in range(2)}
    assert {position.partition: position.offset for position in found} == ends


def test_an_empty_topic_is_a_success_that_writes_nothing(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 3)
    summary, notes = transfer(kafka, topic_name, tmp_path / "out")
    assert (summary.state, summary.alerts) == ("complete", 0)
    assert "is empty" in notes
    assert not list(tmp_path.iterdir())


def test_a_topic_whose_own_keys_are_the_schema_works_and_a_schema_that_differs_in_words_only_is_no_other(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    schema = json.dumps(avro_schema(LIGHT)).encode()
    other = json.dumps(avro_schema(LIGHT) | {"doc": "another one"}).encode()
    values = list(encoded_alerts(LIGHT, 30))
    produce(kafka.bootstrap_servers, topic_name, values, keys=[schema] * 20 + [other] * 10)
    summary, _ = transfer(kafka, topic_name, tmp_path / "out")
    assert (summary.alerts, summary.quarantined, summary.state) == (30, 0, "complete")
    (path,) = (tmp_path / "out").rglob("*.parquet")
    assert pq.read_table(path)["candid"].null_count == 0


def test_a_dry_run_tells_the_plan_and_writes_nothing(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 400, partitions=4)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--dry-run")
    said = run_cli(*arguments)
    assert said.returncode == 0, said.stderr
    assert "400 offsets in 4 ranges" in said.stdout
    assert "estimated" in said.stdout
    found = json.loads(run_cli(*arguments, "--json").stdout)
    true_bytes = sum(map(len, oracle.values.values()))
    assert found["estimated_bytes"] == pytest.approx(true_bytes, rel=0.3)
    assert not list(tmp_path.iterdir())
    transfer(kafka, topic_name, tmp_path / "out")
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 40, first_id=900)
    again = json.loads(run_cli(*arguments, "--json").stdout)
    assert (again["offsets"], again["committed_alerts"]) == (40, 400)
    with hold_lease(Ledger(tmp_path / "out")):
        refused = run_cli(*arguments)
    assert (refused.returncode, "running" in refused.stderr) == (1, True)


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=" ".join)
def test_a_directory_for_each_alert_is_warned_of_before_it_is_made(
    kafka: Any, topic_name: str, tmp_path: Path, more: list[str]
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 20, partitions=1)
    said = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out", "-partitionby", "candid", *more))
    assert said.returncode == 0, said.stderr
    assert re.search("--partitionby candid .*directories", said.stdout + said.stderr)
    usual = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "usual", "-partitionby", "time", *more))
    assert "directories" not in usual.stdout + usual.stderr


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=" ".join)
def test_a_place_where_nothing_can_be_written_is_named_and_not_called_full(
    kafka: Any, topic_name: str, more: list[str]
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 20, partitions=1)
    refused = run_cli(*transfer_arguments(kafka, topic_name, Path("/proc/out"), *more))
    assert refused.returncode == 1
    line = remarks(refused.stderr)[-1]
    assert "/proc" in line
    assert "free" not in line


def test_a_dataset_without_its_ledger_is_not_written_into(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    transfer(kafka, topic_name, tmp_path / "out")
    shutil.rmtree(Ledger(tmp_path / "out").path)
    with pytest.raises(FinkDaskError, match=r"\bledger\b"):
        transfer(kafka, topic_name, tmp_path / "out")
    assert topic_name in topic_names(kafka.bootstrap_servers)
