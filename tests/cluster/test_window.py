"""Alerts of a time: what is outside is neither lost nor missing, and every alert of that time is there once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import fink_dask
from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.existing import Scheduler
from fink_dask.errors import FinkDaskError, SettingsError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import Summary
from fink_dask.progress.events import Event, Note
from fink_dask.progress.tally import Progress
from fink_dask.running.run import run_transfer
from fink_dask.settings import FollowSettings, KafkaSettings, TransferSettings
from fink_dask.units import parse_moment
from fink_dask.verifying.against_kafka import compare_with_kafka
from fink_dask.verifying.files import verify_dataset
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import Oracle, Place, add_alerts, assert_exactly_once, make_topic
from tests.harness.planned import plan_topic
from tests.harness.running import Running
from tests.harness.topics import add_partitions, delete_records_before

pytestmark = pytest.mark.usefixtures("shared_dask")

LIGHT = AlertKind.ZTF_LIGHT
HOUR_MS = 3_600_000
#: Where no alert of a night lies within an hour.
SIX, TWO = "6h", "2h"


@dataclass
class Night:
    """A topic that was filled ten hours ago, five and one, and what came when."""

    bootstrap: str
    topic: str
    scheduler: str
    oracle: Oracle
    began_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    at: dict[str, set[Place]] = field(default_factory=dict)

    @property
    def bootstrap_servers(self) -> str:
        return self.bootstrap

    def add(self, name: str, hours: float, count: int = 60) -> None:
        before = set(self.oracle.values)
        first, at_ms = len(before) + 1, round(self.began_ms - hours * HOUR_MS)
        add_alerts(self.bootstrap, self.topic, self.oracle, LIGHT, count, seed=first, first_id=first, at_ms=at_ms)
        self.at[name] = set(self.oracle.values) - before

    def moment(self, hours: float) -> str:
        return datetime.fromtimestamp(self.began_ms / 1000 - 3600 * hours, UTC).isoformat()

    def transfer(self, outdir: Path, follow: FollowSettings | None = None, **given: Any) -> tuple[Summary, list[str]]:
        for name in {"since", "until"} & given.keys():
            given[name] = parse_moment(name, given[name])
        notes: list[str] = []

        def observe(event: Event) -> None:
            if isinstance(event, Note):
                notes.append(event.text)

        kafka = KafkaSettings(self.bootstrap)
        asked = TransferSettings(self.topic, outdir, kafka, nconsumers=2, follow=follow, **given)
        return run_transfer(asked, Progress(observe), ClusterChoice(scheduler=Scheduler(self.scheduler))).summary, notes

    def assert_proved(self, outdir: Path, *names: str, newer: int = 0) -> None:
        """Fail unless what came at these times is there, and verification knows that nothing else was asked for."""
        assert_exactly_once(outdir, set().union(*(self.at[name] for name in names)))
        found = verify_dataset(Ledger(outdir))
        assert (found.problems, found.summary.state, found.summary.lost) == ((), "complete", 0)
        compared = compare_with_kafka(Ledger(outdir), KafkaSettings(self.bootstrap), 1000)
        assert (compared.problems, compared.newer) == ((), newer)


@pytest.fixture
def night(kafka: Any, topic_name: str, dask_scheduler: str) -> Iterator[Night]:
    schema = make_topic(kafka.bootstrap_servers, topic_name, LIGHT, 3)
    made = Night(kafka.bootstrap_servers, topic_name, dask_scheduler, Oracle(schema, {}))
    for name, hours in (("early", 10), ("middle", 5), ("late", 1)):
        made.add(name, hours)
    return made


def test_a_window_is_taken_and_the_rest_is_neither_lost_nor_missing(night: Night, tmp_path: Path) -> None:
    summary, notes = night.transfer(tmp_path / "out", since=SIX, until=TWO)
    assert (summary.state, summary.alerts, summary.lost) == ("complete", 60, 0)
    assert not any("--follow" in note for note in notes)
    night.assert_proved(tmp_path / "out", "middle")
    status = json.loads(run_cli("status", str(tmp_path / "out"), "--json").stdout)
    assert status["missing_offsets"] == 0
    assert status["since"] < night.moment(5) < status["until"]
    shown = run_cli("verify", str(tmp_path / "out")).stdout
    assert f"since      {status['since']}" in shown
    # The same again is nothing new; without an end, the rest comes.
    again, notes = night.transfer(tmp_path / "out", since=SIX, until=TWO)
    assert (again.run_alerts, any("nothing new" in note for note in notes)) == (0, True)
    rest, _ = night.transfer(tmp_path / "out")
    assert (rest.state, rest.run_alerts) == ("complete", 60)
    night.assert_proved(tmp_path / "out", "middle", "late")


@pytest.mark.parametrize("again", [{}, {"since": SIX}], ids=["not given", "given"])
def test_a_transfer_that_was_killed_goes_on_with_its_time_though_that_has_moved(
    night: Night, tmp_path: Path, again: dict[str, str]
) -> None:
    begun = parse_moment("since", SIX)
    # As if everything had been killed: the plan is frozen, and nothing is committed.
    plan_topic(night.bootstrap, night.topic, tmp_path / "out", since=begun)
    (plan,) = Ledger(tmp_path / "out").plans()
    assert (plan.identity.since, plan.identity.since_asked) == (begun.utc, SIX)
    assert sum(map(len, plan.ranges)) == 120
    night.add("later", 0.5)
    for partition, start in plan.begins:
        delete_records_before(night.bootstrap, night.topic, partition, start)
    summary, _ = night.transfer(tmp_path / "out", **again)
    assert (summary.state, summary.alerts, summary.lost) == ("complete", 180, 0)
    night.assert_proved(tmp_path / "out", "middle", "late", "later")


def test_a_kill_in_mid_run_costs_nothing_of_that_time(night: Night, tmp_path: Path) -> None:
    running = Running(night, night.topic, tmp_path / "out", "--since", SIX, "-nconsumers", "1")
    running.wait_until_committed(1)
    assert running.kill(), "it had ended by itself"
    night.add("later", 0.5)
    result = run_cli(*transfer_arguments(night, night.topic, tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert all(path.name.startswith("year=") for path in (tmp_path / "out").iterdir())
    night.assert_proved(tmp_path / "out", "middle", "late", "later")


def test_another_time_is_refused_with_both_remedies(night: Night, tmp_path: Path) -> None:
    night.transfer(tmp_path / "out", since=night.moment(6))
    night.transfer(tmp_path / "out", since=night.moment(6).replace("+00:00", "Z"))
    with pytest.raises(SettingsError, match=r"begun with --since .*, not 2h; leave --since out .*another --outdir"):
        night.transfer(tmp_path / "out", since=TWO)
    night.transfer(tmp_path / "all")
    with pytest.raises(SettingsError, match="begun with --since all, not 6h"):
        night.transfer(tmp_path / "all", since=SIX)
    night.assert_proved(tmp_path / "out", "middle", "late")


def test_partitions_that_hold_nothing_of_that_time_begin_with_what_comes_next(night: Night, tmp_path: Path) -> None:
    night.add("now", 0.1, count=1)
    summary, _ = night.transfer(tmp_path / "out", since="30m", until="1m")
    assert (summary.state, summary.alerts) == ("complete", 1)
    (place,) = night.at["now"]
    begins = dict(Ledger(tmp_path / "out").plans()[0].begins)
    assert begins[place[0]] == place[1]
    assert sum(begins.values()) == 180, "the others begin after all that they hold"
    add_partitions(night.bootstrap, night.topic, 5)
    night.add("last", 0, count=100)
    summary, _ = night.transfer(tmp_path / "out")
    assert (summary.state, summary.alerts, summary.lost) == ("complete", 101, 0)
    night.assert_proved(tmp_path / "out", "now", "last")


def test_what_kafka_removed_of_that_time_is_lost_and_what_it_removed_before_is_not(
    night: Night, tmp_path: Path
) -> None:
    lows = {each: min(offset for partition, offset in night.at["middle"] if partition == each) for each in range(3)}
    for partition, low in lows.items():
        delete_records_before(night.bootstrap, night.topic, partition, low - 1)
    summary, _ = night.transfer(tmp_path / "after", since=SIX)
    assert (summary.state, summary.alerts, summary.lost) == ("complete", 120, 0)
    for partition, low in lows.items():
        delete_records_before(night.bootstrap, night.topic, partition, low + 2)
    # Nobody can tell how much of it was of that time.
    summary, _ = night.transfer(tmp_path / "before", since=SIX)
    assert (summary.state, summary.alerts) == ("partial", 114)
    assert summary.lost == sum(lows.values()) + 6
    # And what is removed later makes no difference to a dataset that is there.
    summary, _ = night.transfer(tmp_path / "after")
    assert (summary.state, summary.lost) == ("complete", 0)


def test_nothing_of_that_time_is_said_and_writes_nothing(night: Night, tmp_path: Path) -> None:
    for given in ({"since": "10m"}, {"until": "20h"}, {"since": "4h", "until": TWO}):
        summary, notes = night.transfer(tmp_path / "out", **given)
        assert (summary.state, summary.alerts) == ("complete", 0)
        assert any("nothing" in note for note in notes)
    assert not list(tmp_path.iterdir())


def test_a_follower_takes_a_time_too(night: Night, tmp_path: Path) -> None:
    follow = FollowSettings(until_count=120, roll_interval_s=0.5)
    summary, _ = night.transfer(tmp_path / "out", follow=follow, since=SIX)
    assert (summary.state, summary.alerts) == ("complete", 120)
    night.assert_proved(tmp_path / "out", "middle", "late")
    result = run_cli(
        *transfer_arguments(night, night.topic, tmp_path / "ended", "--follow", "--since", SIX, "--until", TWO)
    )
    assert result.returncode == 0, result.stderr
    night.assert_proved(tmp_path / "ended", "middle")


def test_a_dry_run_a_frame_and_a_peek_see_the_same_time(night: Night, tmp_path: Path) -> None:
    given = {"since": night.moment(6), "until": datetime.fromisoformat(night.moment(2))}
    planned = fink_dask.plan(night.topic, tmp_path / "out", night.bootstrap, **given)
    assert (planned.offsets, planned.removed) == (60, 0)
    frame = fink_dask.read_topic(night.topic, night.bootstrap, columns="candid", **given).compute()
    assert set(zip(frame.kafka_partition, frame.kafka_offset, strict=True)) == night.at["middle"]
    spelled = ("--since", SIX, "--until", TWO, "--servers", night.bootstrap, "--json", "-n", "100")
    for more in ((), ("--newest",)):
        seen = run_cli("peek", night.topic, *spelled, *more, cwd=tmp_path)
        assert seen.returncode == 0, seen.stderr
        rows = [json.loads(line) for line in seen.stdout.splitlines()]
        assert {(row["kafka_partition"], row["kafka_offset"]) for row in rows} == night.at["middle"]
    nothing = run_cli("peek", night.topic, "--since", "1m", "--servers", night.bootstrap, cwd=tmp_path)
    assert (nothing.returncode, "nothing" in nothing.stderr) == (1, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--since", "yesterday"), "--since: 'yesterday'"),
        (("--since", "2h", "--until", "6h"), "--until 6h"),
        (("--until", "1969-12-31"), "1970"),
        (("--since", "9999-12-31T23:59-23:59"), "9998"),
        (("--since", "1e300d"), "'1e300d'"),
        (("--since", "-5h"), "'-5h'"),
    ],
)
def test_what_is_no_time_is_refused_in_one_line(tmp_path: Path, given: tuple[str, ...], words: str) -> None:
    for command in (("transfer", "ftransfer_ztf_2026-11-01_1", "o"), ("peek", "ftransfer_ztf_2026-11-01_1")):
        result = run_cli(*command, *given, "--servers", "127.0.0.1:1", cwd=tmp_path)
        assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
        assert words in result.stderr
    with pytest.raises(FinkDaskError, match=r"^since: 'now and then'"):
        fink_dask.plan("ftransfer_ztf_2026-11-01_1", tmp_path / "o", "127.0.0.1:1", since="now and then")
