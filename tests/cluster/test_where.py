"""A dataset of the alerts that a condition is true of: these and no others, and a proof for all that were left out."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import fink_dask
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker, seal, unseal
from fink_dask.settings import KafkaSettings
from fink_dask.verifying.against_kafka import compare_with_kafka
from fink_dask.verifying.files import verify_dataset
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.ledgers import copy_of
from tests.harness.oracle import (
    Oracle,
    Place,
    add_alerts,
    assert_exactly_once,
    assert_values_equal,
    fill_topic,
    note,
    places,
    wait_for,
)
from tests.harness.producer import produce
from tests.harness.running import Running
from tests.harness.topics import delete_records_before, remove_topics

pytestmark = pytest.mark.commands

COUNT, BAD = 600, 9
WHERE = 'magpsf < 17 and finkclass != "SN candidate"'
#: Another one that means the same.
ALSO = "(17. > magpsf) and not finkclass in ['SN candidate']"
LIGHT = AlertKind.ZTF_LIGHT


def is_wanted(alert: dict[str, Any]) -> bool:
    """Say in plain Python what WHERE says."""
    is_bright = alert["magpsf"] is not None and alert["magpsf"] < 17
    return bool(is_bright and alert["finkclass"] not in {None, "SN candidate"})


def wanted_of(oracle: Oracle) -> set[Place]:
    return {
        place
        for place, value in oracle.values.items()
        if not value.startswith(b"poison") and is_wanted(oracle.alert(place))
    }


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    """Publish alerts of three nights, and some records that can't be decoded."""
    oracle = fill_topic(kafka.bootstrap_servers, topic, LIGHT, COUNT, partitions=3)
    poison = [b"poison %d" % number for number in range(BAD)]
    note(oracle, produce(kafka.bootstrap_servers, topic, poison), poison)
    assert COUNT / 50 < len(wanted_of(oracle)) < COUNT / 2
    return oracle


@dataclass
class Transfers:
    """Transfers of one topic."""

    kafka: Any
    topic: str
    scheduler: str

    def run(self, outdir: Path, *more: str, **keywords: Any) -> Any:
        """Run one on a scheduler that is there."""
        return run_cli(
            *transfer_arguments(self.kafka, self.topic, outdir, "--scheduler", self.scheduler, *more), **keywords
        )


@pytest.fixture
def transfers(kafka: Any, topic: str, oracle: Oracle, dask_scheduler: str) -> Transfers:
    return Transfers(kafka, topic, dask_scheduler)


@pytest.fixture(scope="module")
def whole(
    kafka: Any, topic: str, oracle: Oracle, dask_scheduler: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    outdir = tmp_path_factory.mktemp("whole") / "alerts"
    result = Transfers(kafka, topic, dask_scheduler).run(outdir, "-partitionby", "time", "--where", WHERE)
    assert result.returncode == 3, result.stderr
    return outdir


@pytest.fixture
def ledger(whole: Path, tmp_path: Path) -> Ledger:
    return copy_of(whole, tmp_path / "alerts")


def assert_whole(ledger: Ledger, oracle: Oracle) -> None:
    found, wanted = verify_dataset(ledger), wanted_of(oracle)
    assert found.problems == ()
    summary = found.summary
    counts = (summary.alerts, summary.filtered, summary.quarantined, summary.lost)
    assert counts == (len(wanted), COUNT - len(wanted), BAD, 0)
    assert_exactly_once(ledger.outdir, wanted)
    assert not ledger.staged()


@pytest.mark.sample
def test_what_is_there_is_what_the_condition_is_true_of_and_the_rest_is_counted(
    kafka: Any, ledger: Ledger, oracle: Oracle
) -> None:
    assert_whole(ledger, oracle)
    assert_values_equal(ds.dataset(ledger.outdir, partitioning="hive").to_table(), oracle, ("year", "month", "day"))
    assert ledger.plans()[0].identity.where == WHERE
    status = run_cli("status", str(ledger.outdir))
    assert f"filtered   {COUNT - len(wanted_of(oracle))}\n" in status.stdout
    everything = run_cli(
        "verify", str(ledger.outdir), "--sample", "10000", "--bootstrap-servers", kafka.bootstrap_servers
    )
    assert everything.returncode == 3, everything.stdout + everything.stderr
    assert f"all {COUNT + BAD} planned offsets" in everything.stdout
    assert f"{COUNT + BAD} records read again" in everything.stdout


@pytest.mark.sample
def test_a_ledger_that_calls_a_wanted_alert_filtered_is_found_out_by_asking_kafka(kafka: Any, ledger: Ledger) -> None:
    marker = next(marker for marker in ledger.markers(ledger.plans()) if marker.files[0].rows > 1)
    file = marker.files[0]
    path = ledger.outdir / file.path
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(1), path)
    content = path.read_bytes()
    forged = replace(file, rows=file.rows - 1, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    others = (forged, *marker.files[1:])
    said = replace(marker, files=others, rows=marker.rows - 1, filtered=marker.filtered + 1)
    ledger.marker_path(marker.range).write_bytes(seal("marker", said.to_json()))
    assert verify_dataset(ledger).problems == ()
    (problem,) = compare_with_kafka(ledger, KafkaSettings(kafka.bootstrap_servers), 10_000).problems
    assert f" {table['kafka_offset'][0]}: " in problem


@pytest.mark.sample
def test_an_alert_that_the_condition_is_not_true_of_is_found_out_by_asking_kafka(
    kafka: Any, ledger: Ledger, oracle: Oracle
) -> None:
    (plan,) = ledger.plans()
    said = replace(plan, identity=replace(plan.identity, where=f"{WHERE} and magpsf < 15"))
    (path,) = ledger.plans_path.iterdir()
    path.write_bytes(seal("plan", said.to_json()))
    for marker_path in ledger.markers_path.iterdir():
        marker = Marker.from_json(unseal("marker", marker_path))
        marker_path.write_bytes(seal("marker", replace(marker, plan_id=said.plan_id).to_json()))
    problems = compare_with_kafka(ledger, KafkaSettings(kafka.bootstrap_servers), 10_000).problems
    faint = [place for place in wanted_of(oracle) if oracle.alert(place)["magpsf"] >= 15]
    assert len(problems) == len(faint) > 0
    assert all("condition" in problem for problem in problems)


def test_it_goes_on_with_the_same_condition_and_with_no_other_one(
    kafka: Any, topic_name: str, tmp_path: Path, dask_scheduler: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=2)
    run, outdir = Transfers(kafka, topic_name, dask_scheduler).run, tmp_path / "alerts"
    assert run(outdir, "--where", WHERE).returncode == 0
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 200, seed=3, first_id=500)
    refused = run(outdir, "--where", "magpsf < 16")
    assert refused.returncode == 2
    assert f"--where {WHERE!r}, not 'magpsf < 16'" in refused.stderr.splitlines()[-1]
    again = run(outdir, "--where", f"  ({WHERE.replace('<', '  <')})".replace('"', "'").replace("17", "17.0"))
    assert again.returncode == 0, again.stderr
    assert_exactly_once(outdir, wanted_of(oracle))
    assert verify_dataset(Ledger(outdir)).summary.filtered == 400 - len(wanted_of(oracle))
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 100, seed=4, first_id=900)
    without = run(outdir)
    assert without.returncode == 0, without.stderr
    assert_exactly_once(outdir, wanted_of(oracle))
    # Another condition that means the same is another one, as nobody can tell that it does.
    assert run(outdir, "--where", ALSO).returncode == 2
    assert run(tmp_path / "all").returncode == 0
    assert "--where none" in run(tmp_path / "all", "--where", WHERE).stderr


@pytest.mark.parametrize(
    "more",
    [
        ("--columns", "objectId,jd", "--where", WHERE),
        ("--columns", "mangrove", "-partitionby", "finkclass,fid", "--where", WHERE),
        ("-batchsize", "1", "--where", ALSO),
    ],
    ids=["other columns", "other keys", "written otherwise"],
)
def test_what_is_kept_depends_on_no_other_option(
    transfers: Transfers, oracle: Oracle, tmp_path: Path, more: tuple[str, ...]
) -> None:
    result = transfers.run(tmp_path / "alerts", *more)
    assert result.returncode == 3, result.stderr
    assert_whole(Ledger(tmp_path / "alerts"), oracle)
    (path, *_) = (tmp_path / "alerts").rglob("*.parquet")
    if "objectId,jd" in more:
        assert pq.read_schema(path).names == ["jd", "objectId", "kafka_partition", "kafka_offset"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--where", "magpsg < 18"), "magpsf", marks=pytest.mark.sample),
        (("--where", "magpsf < '18'"), "character 10: "),
        (("--where", "candid == 1.5"), "int64"),
        (("--where", "mangrove == 1"), " map"),
        (("--where", "magpsf <"), "expected"),
        (("--where", "__import__('os').system('id') == 1"), "--where: "),
        (("--where", ""), "--where: "),
        (("--where", "magpsf < 17", "--limit", "3"), "--limit"),
    ],
)
def test_what_is_no_condition_on_these_alerts_is_one_line_and_leaves_nothing(
    transfers: Transfers, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    for more in ((), ("--dry-run",)):
        result = transfers.run(tmp_path / "alerts", *arguments, *more)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert "--where" in line
        assert words in line
        assert not list(tmp_path.iterdir())


def test_it_is_an_option_like_any_other(transfers: Transfers, oracle: Oracle, tmp_path: Path) -> None:
    config = tmp_path / "transfer.toml"
    config.write_text(f'partitionby = "time"\nwhere = """\n{WHERE}\n"""\n')
    outlook = transfers.run(tmp_path / "alerts", "--dry-run", "--config", str(config))
    assert f" {WHERE}: " in outlook.stdout
    as_json = transfers.run(tmp_path / "alerts", "--dry-run", "--json", env={"FINK_DASK_WHERE": WHERE})
    said = json.loads(as_json.stdout)
    assert said["where"] == WHERE
    assert 0 < said["matches"]["matching"] < said["matches"]["looked_at"]
    assert said["matches"]["values"] == {}
    assert transfers.run(tmp_path / "alerts", "--config", str(config)).returncode == 3
    assert_whole(Ledger(tmp_path / "alerts"), oracle)


@pytest.mark.parametrize(
    ("where", "column", "there"),
    [
        pytest.param('finkclass == "SN Candidate"', "finkclass", "SN candidate", marks=pytest.mark.sample),
        ("magpsf > 90", "magpsf", " to "),
        ("fid in [7, 8]", "fid", "1"),
        ("is_transient is not null and magpsf < 0", "is_transient", "True"),
    ],
)
def test_a_condition_that_nothing_matches_says_what_is_there_instead(
    transfers: Transfers, oracle: Oracle, tmp_path: Path, where: str, column: str, there: str
) -> None:
    outlook = transfers.run(tmp_path / "alerts", "--where", where, "--dry-run")
    assert outlook.returncode == 0, outlook.stderr
    (line,) = (line for line in outlook.stdout.splitlines() if "would keep" in line)
    assert "none of" in line
    said = json.loads(transfers.run(tmp_path / "alerts", "--where", where, "--dry-run", "--json").stdout)["matches"]
    assert (said["matching"], column in said["values"]) == (0, True)
    assert there in said["values"][column]
    ended = transfers.run(tmp_path / "alerts", "--where", where)
    assert ended.returncode == 3  # of the records that can't be decoded
    assert "none of" in ended.stderr
    assert there in ended.stderr
    assert Ledger(tmp_path / "alerts").exists()


def test_a_job_gets_the_condition_as_it_was_typed(tmp_path: Path) -> None:
    where = 'note != "it\'s $HOME `x`"'
    asked = ["--cluster", "slurm", "--cores", "1", "--memory", "1GB", "--topic", "t", "--outdir", str(tmp_path / "a")]
    job = run_cli("submit", *asked, "--where", where, "--bootstrap-servers", "127.0.0.1:1", "--dry-run")
    assert job.returncode == 0, job.stderr
    words = shlex.split(next(line for line in job.stdout.splitlines() if line.startswith("exec ")))
    assert words[words.index("--where") + 1] == where


@pytest.mark.kills
def test_kills_of_everything_cost_a_dataset_with_a_condition_nothing(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    chance = random.Random(8)
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 12_000, partitions=6)
    wanted = wanted_of(oracle)
    outdir = tmp_path / "alerts"
    for kill in range(4):
        running = Running(kafka, topic_name, outdir, "--where", WHERE)
        wait_for(lambda: running.ledger.exists() or running.is_over, "the plan")  # noqa: B023
        running.wait_until_committed(kill + 1)
        time.sleep(chance.random() * 0.1)
        assert running.kill(), "it was over before"
        assert set(places(outdir)) <= wanted
    last = run_cli(*transfer_arguments(kafka, topic_name, outdir, "-partitionby", "time", "--where", WHERE))
    assert last.returncode == 0, last.stderr
    assert_exactly_once(outdir, wanted)
    found = verify_dataset(Ledger(outdir))
    assert (found.problems, found.summary.filtered) == ((), 12_000 - len(wanted))


@pytest.mark.following
def test_a_follower_keeps_what_is_asked_for_and_counts_all(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 300, partitions=3)
    options = ("--follow", "--roll-interval", "1s", "--until-count", "600", "--where", WHERE, "--json")
    running = Running(kafka, topic_name, tmp_path / "alerts", *options)
    running.wait_until_committed(1)
    assert not running.is_over
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 300, seed=3, first_id=500)
    # It ends by itself: those that are filtered are accounted for, as the portal has announced them, too.
    code, err = running.finish()
    assert code == 0, err
    wanted, summary = wanted_of(oracle), json.loads(running.out)
    assert (summary["alerts"], summary["filtered"]) == (len(wanted), 600 - len(wanted))
    assert len(running.ledger.plans()) > 1
    assert_exactly_once(running.outdir, wanted)
    assert verify_dataset(running.ledger).problems == ()


def _delete_one(ledger: Ledger) -> None:
    sorted(ledger.outdir.rglob("*.parquet"))[0].unlink()


def _delete_all(ledger: Ledger) -> None:
    shutil.rmtree(ledger.outdir)


def _edit_marker(ledger: Ledger) -> None:
    path = sorted(ledger.markers_path.iterdir())[0]
    document = json.loads(path.read_bytes())
    document["marker"]["filtered"] += 1
    path.write_text(json.dumps(document))


def _delete_marker(ledger: Ledger) -> None:
    sorted(ledger.markers_path.iterdir())[0].unlink()


def _delete_quarantine(ledger: Ledger) -> None:
    shutil.rmtree(ledger.path / "quarantine")


@pytest.mark.parametrize(
    "damage",
    [_delete_one, _delete_all, _edit_marker, _delete_marker, _delete_quarantine],
    ids=lambda damage: damage.__name__.strip("_"),
)
def test_a_repair_filters_again_what_the_transfer_has_filtered(
    kafka: Any, ledger: Ledger, oracle: Oracle, damage: Callable[[Ledger], None]
) -> None:
    damage(ledger)
    assert verify_dataset(ledger).problems != ()
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--dashboard-address", "127.0.0.1:0")
    result = run_cli("repair", str(ledger.outdir), *servers)
    assert result.returncode == 3, result.stdout + result.stderr
    assert_whole(ledger, oracle)


def test_what_a_repair_can_not_tell_from_what_was_lost_it_declares_lost(
    kafka: Any, topic_name: str, tmp_path: Path, dask_scheduler: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 300, partitions=1)
    ledger = Ledger(tmp_path / "alerts")
    assert Transfers(kafka, topic_name, dask_scheduler).run(ledger.outdir, "--where", WHERE).returncode == 0
    delete_records_before(kafka.bootstrap_servers, topic_name, 0, 100)
    _delete_one(ledger)
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--dashboard-address", "127.0.0.1:0")
    assert run_cli("repair", str(ledger.outdir), *servers).returncode == 1
    result = run_cli("repair", str(ledger.outdir), *servers, "--on-loss", "continue")
    assert result.returncode == 3, result.stdout + result.stderr
    found, kept = verify_dataset(ledger), {place for place in wanted_of(oracle) if place[1] >= 100}
    assert found.problems == ()
    assert (found.summary.lost, found.summary.filtered) == (100, 200 - len(kept))
    assert_exactly_once(ledger.outdir, kept)


def test_a_compaction_keeps_the_proof_and_the_condition(
    transfers: Transfers, ledger: Ledger, oracle: Oracle, tmp_path: Path
) -> None:
    result = run_cli("compact", str(ledger.outdir), str(tmp_path / "few"))
    assert result.returncode == 3, result.stderr
    assert_whole(Ledger(tmp_path / "few"), oracle)
    again = transfers.run(tmp_path / "few", "-partitionby", "time", "--where", WHERE)
    assert again.returncode == 3, again.stderr
    again = transfers.run(tmp_path / "few", "-partitionby", "time")
    assert (again.returncode, "nothing new" in again.stderr) == (3, True), "it goes on with another condition"
    assert transfers.run(tmp_path / "few", "-partitionby", "time", "--where", "magpsf < 0").returncode == 2


@pytest.mark.parametrize("partitionby", [(), ("-partitionby", "time")], ids=["none", "time"])
def test_a_dataset_of_no_alerts_is_one(transfers: Transfers, tmp_path: Path, partitionby: tuple[str, ...]) -> None:
    outdir = tmp_path / "alerts"
    result = transfers.run(outdir, *partitionby, "--where", "magpsf < 0", "--json")
    assert result.returncode == 3, result.stderr
    assert json.loads(result.stdout)["filtered"] == COUNT
    assert verify_dataset(Ledger(outdir)).problems == ()
    dataset = fink_dask.open_dataset(outdir)
    assert dataset.to_table().num_rows == 0
    assert {"objectId", "magpsf", "kafka_offset", *(("day",) if partitionby else ())} <= set(dataset.schema.names)
    assert len(pd.read_parquet(outdir)) == 0
    assert ds.dataset(outdir, partitioning="hive").to_table().num_rows == 0
    assert run_cli("status", str(outdir)).returncode == 0
    again = transfers.run(outdir, *partitionby, "--where", "magpsf < 0")
    assert (again.returncode, f"{COUNT} filtered" in again.stderr) == (3, True), "none of them is in the dataset"
    said = run_cli("read", str(outdir))
    assert (said.returncode, f"{COUNT} filtered" in said.stderr) == (1, True)
    compacted = run_cli("compact", str(outdir), str(tmp_path / "few"))
    assert compacted.returncode == 3, compacted.stderr
    assert verify_dataset(Ledger(tmp_path / "few")).problems == ()
    assert fink_dask.open_dataset(tmp_path / "few").to_table().num_rows == 0


def test_it_is_asked_of_each_of_several_topics(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    names = [f"{topic_name}1", f"{topic_name}2"]
    oracles = {
        name: fill_topic(kafka.bootstrap_servers, name, kind, 60, partitions=2)
        for name, kind in zip(names, (LIGHT, AlertKind.ZTF_FULL), strict=True)
    }
    result = run_cli(*transfer_arguments(kafka, f"{topic_name}*", tmp_path / "alerts", "--where", WHERE))
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(rf"{names[1]}: .*--where.* candidate\.magpsf\b", result.stdout)
    assert "filtered" in result.stdout.splitlines()[0]
    assert_exactly_once(tmp_path / "alerts" / names[0], wanted_of(oracles[names[0]]))
    remove_topics(kafka.bootstrap_servers, *names)
