"""What is on the broker is said as it is, in a few requests, whatever the names are and however many there are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fink_dask.kafka import overview
from fink_dask.kafka.inspect import ask_watermarks
from fink_dask.kafka.overview import commit_group_offsets
from fink_dask.settings import KafkaSettings
from fink_dask.units import duration_words, printable
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, remarks, run_cli
from tests.harness.kafka import KafkaBroker
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import fill_topic, wait_for
from tests.harness.producer import produce
from tests.harness.topics import client_config, create_topic, delete_records_before, delete_topic

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def held(kafka: Any) -> Iterator[str]:
    """Yield the beginning of the names of a few topics."""
    prefix = f"ftransfer_ztf_2026-11-01_{uuid.uuid4().int % 10**9}"
    servers = kafka.bootstrap_servers
    fill_topic(servers, f"{prefix}_a", AlertKind.ZTF_LIGHT, 60, partitions=3)
    now_ms = int(time.time() * 1000)
    create_topic(servers, f"{prefix}_b", 2, {"retention.ms": str(7 * DAY_MS)})
    writer = Producer(client_config(servers))
    for age_days in (5, 1):
        writer.produce(f"{prefix}_b", b"x", partition=0, timestamp=now_ms - age_days * DAY_MS)
    writer.flush(30)
    create_topic(servers, f"{prefix}_c", 1, {"retention.ms": "-1"})
    produce(servers, f"{prefix}_c", [b"x"] * 10)
    delete_records_before(servers, f"{prefix}_c", 0, 4)
    create_topic(servers, f"{prefix}_d", 1)
    yield prefix
    for name in ("a", "a_schema", "b", "c", "d"):
        delete_topic(servers, f"{prefix}_{name}", missing_ok=True)


def look(kafka: Any, *arguments: str, **options: Any) -> dict[str, dict[str, Any]]:
    result = run_cli("topics", "--bootstrap-servers", kafka.bootstrap_servers, "--json", *arguments, **options)
    assert result.returncode == 0, result.stderr
    return {topic["topic"]: topic for topic in json.loads(result.stdout)["topics"]}


def test_a_topic_that_is_deleted_while_topics_are_looked_at_is_not_there_and_not_an_error(
    kafka: Any, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, settings = f"{held}_e", KafkaSettings(kafka.bootstrap_servers)
    create_topic(kafka.bootstrap_servers, leaving, 1)

    def ask_too_late(admin: Any, partitions: Any) -> Any:
        assert leaving in partitions
        delete_topic(kafka.bootstrap_servers, leaving)
        return ask_watermarks(admin, partitions)

    monkeypatch.setattr(overview, "ask_watermarks", ask_too_late)
    found = overview.look_at_topics(settings, [f"{held}_*"])
    assert [topic.topic for topic in found.topics] == [f"{held}_{name}" for name in "abcd"]
    assert all(topic.error is None for topic in found.topics)
    create_topic(kafka.bootstrap_servers, leaving, 1)
    there, gone = overview.look_at_topics(settings, [f"{held}_a", leaving]).topics
    assert (there.error, gone.topic) == (None, leaving)
    assert gone.error is not None, "whoever names a topic wants to know"


def test_each_topic_says_what_it_holds_and_for_how_long_yet(kafka: Any, held: str) -> None:
    found = look(kafka, f"{held}_*")
    assert set(found) == {f"{held}_{name}" for name in "abcd"}, "the schema topic is none of alerts"
    alerts, aged, cut, empty = (found[f"{held}_{name}"] for name in "abcd")
    assert (alerts["partitions"], alerts["offsets"], alerts["lag"]) == (3, 60, None)
    assert abs(alerts["newest_ms"] / 1000 - time.time()) < 600
    assert alerts["oldest_ms"] <= alerts["newest_ms"]
    assert aged["newest_ms"] - aged["oldest_ms"] == 4 * DAY_MS
    assert aged["retention_ms"] == 7 * DAY_MS
    assert aged["removal_ms"] == aged["oldest_ms"] + 7 * DAY_MS
    assert 1.9 < aged["days_left"] < 2.1
    assert (cut["offsets"], cut["retention_ms"], cut["days_left"]) == (6, -1, None)
    assert (empty["offsets"], empty["oldest_ms"], empty["newest_ms"], empty["days_left"]) == (0, None, None, None)


def test_the_table_shows_the_same_and_is_not_folded_in_a_pipe(kafka: Any, held: str) -> None:
    result = run_cli("topics", "--bootstrap-servers", kafka.bootstrap_servers, f"{held}_*", env={"COLUMNS": "40"})
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.startswith(held)}
    assert rows[f"{held}_b"] == ["2", "2", "5.0", "d", "1.0", "d", "7.0", "d", "2.0", "d"]
    assert rows[f"{held}_c"][:2] == ["1", "6"]
    assert rows[f"{held}_c"][-2:] == ["for", "ever"]
    assert rows[f"{held}_d"][:2] == ["1", "0"]
    assert "stable" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("columns", [120, 50])
def test_a_terminal_shows_names_and_numbers_whole_however_narrow_it_is(kafka: Any, held: str, columns: int) -> None:
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "topics", "--bootstrap-servers", kafka.bootstrap_servers, f"{held}_[ab]"],
        stdout=follower,
        env=environment({"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}),
    )
    os.close(follower)
    shown = ""
    with suppress(OSError), os.fdopen(leader, encoding="utf-8", closefd=True) as terminal:
        for line in terminal:
            shown += line
    assert process.wait(timeout=300) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert f"{held}_a" in text
    assert f"{held}_b" in text
    assert "5.0 d" in text
    assert "…" not in text


def test_without_a_pattern_there_are_finks_topics_alone_and_all_has_the_others(kafka: Any, held: str) -> None:
    other = f"weather_{uuid.uuid4().hex}"
    create_topic(kafka.bootstrap_servers, other, 1)
    try:
        found = look(kafka)
        assert f"{held}_a" in found
        assert not {other, f"{held}_a_schema"} & set(found)
        assert {other, f"{held}_a", f"{held}_a_schema"} <= set(look(kafka, "--all"))
        assert set(look(kafka, "--all", f"{held}_a*")) == {f"{held}_a", f"{held}_a_schema"}
        assert set(look(kafka, other)) == {other}, "a topic that is named is shown, Fink's or not"
    finally:
        delete_topic(kafka.bootstrap_servers, other)


@pytest.mark.parametrize("known_by", ["option", "groupid", "group_id"])
def test_the_lag_is_that_of_the_users_group(kafka: Any, held: str, tmp_path: Path, known_by: str) -> None:
    group = f"mine-{uuid.uuid4().hex}"
    settings = KafkaSettings(kafka.bootstrap_servers)
    (tmp_path / ".finkclient").mkdir()
    home = {"HOME": str(tmp_path)}
    options = ["--group-id", group] if known_by == "option" else []
    if not options:
        (tmp_path / ".finkclient" / "ztf_credentials.yml").write_text(f"servers: nowhere:1\n{known_by}: {group}\n")
    before = look(kafka, f"{held}_*", *options, env=home)
    assert {topic["lag"] for topic in before.values()} == {None}, "a group that has read nothing has no lag"
    commit_group_offsets(settings, f"{held}_b", group, {0: 1})
    commit_group_offsets(settings, f"{held}_c", group, {0: 2})  # of which Kafka has removed what follows
    after = look(kafka, f"{held}_*", *options, env=home)
    assert [after[f"{held}_{name}"]["lag"] for name in "abcd"] == [None, 1, 6, None]
    table = run_cli("topics", "--bootstrap-servers", kafka.bootstrap_servers, f"{held}_*", *options, env=home)
    assert group in table.stdout


@pytest.fixture(scope="module")
def unused_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Yield a Kafka that nobody has asked anything yet; the second test that it is for does not mind the first."""
    broker = KafkaBroker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.discard()


def test_a_group_on_a_broker_that_has_never_seen_one_is_no_crash(unused_kafka: KafkaBroker) -> None:
    create_topic(unused_kafka.bootstrap_servers, "ftransfer_ztf_2026-11-01_1", 2)
    # The first question makes the broker appoint coordinators, which end an admin client of librdkafka that asks.
    for number in range(5):
        found = look(unused_kafka, "--group-id", f"group-{number}")
        assert found["ftransfer_ztf_2026-11-01_1"]["lag"] is None


def test_a_credentials_file_that_is_broken_keeps_nobody_from_looking(kafka: Any, held: str, tmp_path: Path) -> None:
    (tmp_path / ".finkclient").mkdir()
    (tmp_path / ".finkclient" / "ztf_credentials.yml").write_text("[")
    result = run_cli("topics", "--bootstrap-servers", kafka.bootstrap_servers, f"{held}_*", env={"HOME": str(tmp_path)})
    assert result.returncode == 0
    assert f"{held}_a" in result.stdout
    assert "lag" in result.stderr


@pytest.mark.parametrize(
    ("patterns", "code", "words"),
    [
        (["ftransfer_ztf_nothing_*"], 1, "ftransfer_ztf_nothing_*"),
        (["ftransfer_ztf_nothing"], 1, "ftransfer_ztf_nothing: "),
        (["a b*"], 2, "'a b*'"),
        (["--all", "\x1b[31m*"], 1, "[31m*"),
    ],
)
def test_what_matches_nothing_is_one_line(kafka: Any, held: str, patterns: list[str], code: int, words: str) -> None:
    result = run_cli("topics", "--bootstrap-servers", kafka.bootstrap_servers, *patterns)
    assert result.returncode == code
    assert words in result.stderr
    assert len(remarks(result.stderr)) == 1
    assert "\x1b" not in result.stderr
    assert result.stdout == ""


def test_one_of_several_patterns_that_matches_nothing_is_said(kafka: Any, held: str) -> None:
    result = run_cli("topics", "--bootstrap-servers", kafka.bootstrap_servers, f"{held}_a", "fxmatch_nothing_*")
    assert result.returncode == 0
    assert f"{held}_a" in result.stdout
    assert "fxmatch_nothing_*" in result.stderr


@pytest.mark.commands
def test_a_broker_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    result = run_cli("topics", "--bootstrap-servers", nowhere, impatient=True)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    # Before it, that Kafka is being asked: the user waits for more than ten seconds.
    assert nowhere in result.stderr.strip().splitlines()[-1]


def test_many_topics_are_all_looked_at(unused_kafka: KafkaBroker) -> None:
    admin = AdminClient(client_config(unused_kafka.bootstrap_servers))
    names = [f"ftransfer_lsst_2026-11-01_{number}" for number in range(30)]
    for future in admin.create_topics([NewTopic(name, 10, 1) for name in names], operation_timeout=120).values():
        future.result(150)
    # The broker says that they are made some seconds before it knows them all, and leads their 300 partitions.
    arguments = ["topics", "--json", "--bootstrap-servers", unused_kafka.bootstrap_servers, "ftransfer_lsst_*"]

    def is_ready() -> bool:
        said = run_cli(*arguments)
        return said.returncode == 0 and len(json.loads(said.stdout)["topics"]) == len(names)

    wait_for(is_ready, "the partitions to have leaders")
    produce(unused_kafka.bootstrap_servers, names[7], [b"x"] * 5)
    found = look(unused_kafka, "ftransfer_lsst_*", "--group-id", "nobody")
    assert len(found) == 30
    assert {topic["partitions"] for topic in found.values()} == {10}
    assert found[names[7]]["offsets"] == 5
    assert {topic["retention_ms"] for topic in found.values()} == {7 * DAY_MS}


@pytest.mark.parametrize(
    ("seconds", "words"), [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2.0 h"), (604_800, "7.0 d")]
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_nothing_from_outside_moves_the_cursor_or_goes_on_without_end() -> None:
    shown = printable("a\x1b[31m\n\u202e\x07b" + "x" * 10_000)
    assert shown.isprintable()
    assert shown.startswith("a\N{REPLACEMENT CHARACTER}[31m")
    assert len(shown) == 301
