"""One range, in a plain loop, killed and repeated in every way."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fink_dask.cluster.local import local_cluster
from fink_dask.errors import InterruptedTransferError, LedgerError, SettingsError
from fink_dask.kafka import reader
from fink_dask.kafka.line import Line
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.remainder import rest_of
from fink_dask.ledger.summary import summarise
from fink_dask.progress.events import RangeProgress
from fink_dask.ranges.slots import DecodeSlot, DecodeSlots
from fink_dask.ranges.task import transfer_range
from fink_dask.ranges.work import Work
from fink_dask.running.scheduling import run_ranges
from fink_dask.verifying.files import verify_dataset
from tests.alerts.made_up import AlertKind
from tests.harness.crash import run
from tests.harness.oracle import assert_exactly_once, fill_topic, places, wait_for
from tests.harness.planned import plan_topic
from tests.harness.producer import produce
from tests.harness.topics import delete_records_before

STEPS = ["staged", "marked", "linked", "renamed", "published"]


def digests(outdir: Path) -> dict[str, str]:
    return {
        str(path.relative_to(outdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in outdir.rglob("*")
        if path.is_file()
    }


def transfer_all(work: list[Work]) -> None:
    for item in work:
        transfer_range(item.range, item.settings)


def die_at(step: str) -> Callable[[str], None]:
    def end(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return end


def transfer_and_die(item: Work, step: str) -> None:
    transfer_range(item.range, item.settings, step=die_at(step))


def test_a_loop_and_dask_write_byte_identical_datasets(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 3000)
    looped = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "loop", partitionby=("time",), batchsize=77)
    dasked = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "dask", partitionby=("time",), batchsize=77)
    transfer_all(looped)
    with local_cluster(4, len(dasked), "127.0.0.1:0") as cluster:
        run_ranges(cluster, dasked, 4, lambda _: None, lambda: None)
    assert summarise(dasked[0].settings.ledger).summary.alerts == 3000
    assert digests(tmp_path / "loop") == digests(tmp_path / "dask")
    assert len(digests(tmp_path / "loop")) == 30


def test_records_that_come_as_messages_and_from_a_queue_write_byte_identical_datasets(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 1500, partitions=2)
    for way, least in (("messages", 2**62), ("queue", 0)):
        monkeypatch.setattr(reader, "QUEUE_BYTES", least)
        transfer_all(
            plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / way, partitionby=("time",), batchsize=77)
        )
    assert digests(tmp_path / "messages") == digests(tmp_path / "queue") != {}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_of_the_commit_loses_and_repeats_nothing(
    kafka: Any, topic_name: str, tmp_path: Path, step: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 600, partitions=2)
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", partitionby=("time",))
    first, ledger = work[0], work[0].settings.ledger
    assert run(transfer_and_die, first, step) == -signal.SIGKILL
    committed = ledger.marker(first.range, first.settings.plan_id) is not None
    assert committed == (step in {"linked", "renamed", "published"})
    if not committed:
        assert not places(ledger.outdir), "a reader saw rows of a range that was not committed"
    roll_forward(ledger, ledger.plans())
    transfer_all(work)
    assert_exactly_once(ledger.outdir, oracle.values)
    assert verify_dataset(ledger).summary.state == "complete"
    assert not ledger.staged()


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_what_was_filtered_counted_once(
    kafka: Any, topic_name: str, tmp_path: Path, step: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 600, partitions=2)
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", where="fid == 1 and jd > 0")
    ledger = work[0].settings.ledger
    assert run(transfer_and_die, work[0], step) == -signal.SIGKILL
    roll_forward(ledger, ledger.plans())
    transfer_all(work)
    wanted = [place for place in oracle.values if oracle.alert(place)["fid"] == 1]
    assert_exactly_once(ledger.outdir, wanted)
    found = verify_dataset(ledger)
    assert (found.problems, found.summary.state, found.summary.filtered) == ((), "complete", 600 - len(wanted))
    assert not ledger.staged()


def test_a_range_that_is_committed_is_not_consumed_again(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")
    heard: list[RangeProgress] = []
    once = transfer_range(item.range, item.settings, heard.append)
    again = transfer_range(item.range, item.settings, lambda _: pytest.fail("it was consumed again"))
    assert once.seconds
    assert not again.seconds
    assert once.rows == again.rows == heard[-1].rows == 200


def test_what_is_left_of_a_range_is_read_though_kafka_has_nothing_more_of_what_is_there(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", on_loss="fail")
    transfer_range(item.range, item.settings)
    ledger = item.settings.ledger
    (marker,) = ledger.markers(ledger.plans())
    rest = replace(
        rest_of(marker),
        wanted=((150, 160), (180, 200)),
        files=(),
        superseded=tuple(file.path for file in marker.files),
        handed_over=((0, 150), (160, 180)),
    )
    delete_records_before(kafka.bootstrap_servers, topic_name, 0, 150)
    transfer_range(item.range, item.settings, remainder=rest)
    assert_exactly_once(ledger.outdir, [(0, offset) for start, end in rest.wanted for offset in range(start, end)])
    assert verify_dataset(ledger).problems == ()


def test_a_range_that_waits_for_its_turn_to_decode_keeps_nobody_from_the_line(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")
    turns, line, somebody = DecodeSlots(1), Line(1), object()
    turns.take(lambda: False)
    assert line.enter(somebody)
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(transfer_range, item.range, item.settings, turn=DecodeSlot(turns), line=line)
        try:
            wait_for(lambda: line._queue, "the range to wait for the line")
            line.leave(somebody)
            wait_for(lambda: line._readers, "it to read, though others decode")
        finally:
            turns.give()
    assert ended.result().rows == 200
    assert line.enter(somebody)


def test_a_late_attempt_loses_and_cleans_up(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")
    ledger = item.settings.ledger

    def another_is_faster(step: str) -> None:
        if step == "marked" and ledger.marker(item.range, item.settings.plan_id) is None:
            transfer_range(item.range, item.settings)

    late = transfer_range(item.range, item.settings, step=another_is_faster)
    assert late.rows == 200
    assert_exactly_once(ledger.outdir, oracle.values)
    assert not ledger.staged()


def test_an_attempt_that_wakes_after_a_restart_cannot_reach_the_new_ledger(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")
    ledger = item.settings.ledger

    def restart_meanwhile(step: str) -> None:
        if step == "staged":
            ledger.path.rename(tmp_path / "old-ledger")
            shutil.rmtree(ledger.outdir)
            plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")

    with pytest.raises(Exception, match="No such file"):
        transfer_range(item.range, item.settings, step=restart_meanwhile)
    assert ledger.marker(item.range, item.settings.plan_id) is None
    assert not places(ledger.outdir)


def test_an_attempt_that_starts_after_a_restart_cannot_reach_the_new_ledger(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    (queued,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")
    ledger = queued.settings.ledger
    ledger.path.rename(tmp_path / "old-ledger")
    shutil.rmtree(ledger.outdir)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", partitionby=("time",))
    assert item.range == queued.range
    with pytest.raises(LedgerError, match=queued.settings.plan_id):
        transfer_range(queued.range, queued.settings)
    assert not ledger.staged()
    transfer_all([item])
    with pytest.raises(LedgerError, match=f"{item.settings.plan_id}.*{queued.settings.plan_id}"):
        transfer_range(queued.range, queued.settings)
    assert_exactly_once(ledger.outdir, oracle.values)


def test_being_told_to_stop_leaves_nothing_behind(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 500, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", batchsize=10)
    heard: list[RangeProgress] = []
    with pytest.raises(InterruptedTransferError):
        transfer_range(item.range, item.settings, heard.append, should_stop=lambda: len(heard) > 2)
    assert not item.settings.ledger.staged()
    assert summarise(item.settings.ledger).missing_offsets == 500


def test_bad_records_are_quarantined_with_their_bytes_and_do_not_disturb_their_neighbours(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 100, partitions=1)
    good = next(iter(oracle.values.values()))
    poison = [b"", None, good[:-1], good + b"x", b"\xff" * 40]
    produced = produce(kafka.bootstrap_servers, topic_name, poison)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", partitionby=("time",))
    result = transfer_range(item.range, item.settings)
    ledger = item.settings.ledger
    assert (result.rows, result.quarantined) == (100, 5)
    assert_exactly_once(ledger.outdir, oracle.values)
    (path,) = (ledger.path / "quarantine").iterdir()
    rows = pq.read_table(path).to_pylist()
    assert {row["kafka_offset"]: row["value"] for row in rows} == {
        record.offset: poison[record.index] for record in produced
    }
    assert all(row["reason"] and row["kafka_timestamp"] for row in rows)
    assert {row["key"] for row in rows} == {None}
    verified = verify_dataset(ledger)
    assert (verified.summary.state, verified.problems) == ("partial", ())


def test_too_many_partition_keys_are_refused_in_words(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 1500, partitions=1)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", partitionby=("candid",))
    with pytest.raises(SettingsError, match="more than 1,000 partition keys"):
        transfer_range(item.range, item.settings)
    assert not places(item.settings.ledger.outdir)
