"""The end of a transfer of one topic: nobody is told that alerts are there that are not, nor is disturbed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fink_dask.errors import LedgerError
from fink_dask.kafka.inspect import open_inspector
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.overview import read_group_offsets
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.lease import Lease, hold_lease
from fink_dask.ledger.restart import set_aside
from fink_dask.planning.topic import TopicTransfer, finish
from fink_dask.progress.tally import Progress
from fink_dask.ranges.task import transfer_range
from fink_dask.settings import KafkaSettings, TransferSettings
from tests.alerts.made_up import AlertKind
from tests.harness.ledgers import make_ledger, make_plan, stage_range
from tests.harness.oracle import fill_topic
from tests.harness.planned import plan_topic

RANGE = OffsetRange(0, 0, 25)
PLAN = make_plan([RANGE])


def test_no_other_tool_is_told_to_go_on_behind_alerts_that_are_not_there(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 20, partitions=2)
    group, settings = f"{topic_name}-group", KafkaSettings(kafka.bootstrap_servers)
    asked = TransferSettings(topic=topic_name, outdir=tmp_path / "alerts", kafka=settings, group_id=group)
    *others, last = plan_topic(kafka.bootstrap_servers, topic_name, asked.outdir)
    ledger = last.settings.ledger
    with open_inspector(settings) as inspector:

        def end(lease: Lease) -> None:
            finish(asked, lambda _: None, ledger, inspector, lease, [0, 1])

        def refuse(lease: Lease, words: str) -> None:
            with pytest.raises(LedgerError, match=words):
                end(lease)
            assert read_group_offsets(settings, group, {topic_name: [0, 1]}) == {}

        with hold_lease(ledger) as lease:
            for item in others:
                transfer_range(item.range, item.settings)
            refuse(lease, "not committed")
            transfer_range(last.range, last.settings)
            file = next(ledger.outdir.rglob("*.parquet"))
            content = file.read_bytes()
            file.unlink()
            refuse(lease, file.name)
            file.write_bytes(content)
        with hold_lease(ledger) as of_another_job:
            refuse(lease, f"process {os.getpid()}")
            end(of_another_job)
    assert read_group_offsets(settings, group, {topic_name: [0, 1]}) == {
        (topic_name, item.range.partition): item.range.end for item in (*others, last)
    }


def test_a_job_that_another_one_has_begun_again_leaves_alone_what_that_stages(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    settings = TransferSettings(PLAN.identity.topic, ledger.outdir, KafkaSettings("127.0.0.1:1"))
    late = TopicTransfer(settings, lambda _: None, Progress())
    late.begin()
    try:
        set_aside(ledger)
        make_ledger(ledger.outdir, PLAN)
        with hold_lease(ledger):
            attempt = Attempt(ledger, RANGE, PLAN.plan_id, lambda _: None)
            attempt.begin()
            marker = stage_range(attempt, PLAN, RANGE)
            for go_on in (late.check, late.settle):
                with pytest.raises(LedgerError, match=f"process {os.getpid()}"):
                    go_on()
            assert attempt.commit(marker) == marker
    finally:
        late.end()
