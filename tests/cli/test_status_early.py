"""``status`` of what has no plan: of a transfer whose jobs still wait in a queue, and of a name that was mistyped."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.summary import Arrival, Lag, Phase, write_arrival, write_lag
from tests.harness.cli import run_cli
from tests.harness.ledgers import make_ledger, make_plan, transfer


def test_a_transfer_that_waits_is_not_called_one_that_nobody_has_begun(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    with hold_lease(ledger):
        result = run_cli("status", str(ledger.outdir))
    assert result.returncode == 1
    assert "begun" in result.stderr
    assert str(ledger.path) in run_cli("status", str(ledger.outdir)).stderr


def test_what_is_nearly_all_is_not_called_all_of_it(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 999), OffsetRange(1, 0, 1)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    result = run_cli("status", str(ledger.outdir))
    assert "committed  99 %: 999 of 1,000 offsets, 1 of 2 ranges" in result.stdout


def test_a_transfer_that_runs_says_what_it_has_received_beside_what_is_committed(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 900), OffsetRange(1, 0, 100)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[1])
    arrival = Arrival(time.time(), Phase.RECEIVING, 600, 600_000, 0, 1000.0, 400_000, 400.0, 5.0, False, 300.0)
    with hold_lease(ledger):
        write_arrival(ledger, arrival)
        words = run_cli("status", str(ledger.outdir)).stdout
        content = json.loads(run_cli("status", str(ledger.outdir), "--json").stdout)
    assert "committed  10 %: 100 of 1,000 offsets" in words
    assert all(amount in words for amount in ("600.0 kB", "1.0 kB/s", "6 min 40 s"))
    assert (content["state"], content["running"]) == ("running", True), "what runs is not interrupted"
    assert content["received"]["offsets"] == 600
    assert (content["planned_offsets"], content["missing_offsets"]) == (1000, 900)
    assert content["received"]["quiet_s"] >= 5
    assert json.loads(run_cli("status", str(ledger.outdir), "--json").stdout)["received"] is None


def test_a_topic_whose_follower_was_killed_is_said_to_be_followed_no_more_and_how_to_go_on(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 20)])
    ledger = make_ledger(tmp_path / "alerts" / "topic", plan)
    transfer(ledger, plan, plan.ranges[0])
    for place in (ledger.outdir, tmp_path / "alerts"):  # alone, and as one of several
        assert "followed" not in run_cli("status", str(place)).stdout
    write_lag(ledger, Lag(1_780_000_000.0, {0: 0}))
    for place in (ledger.outdir, tmp_path / "alerts"):
        words = run_cli("status", str(place)).stdout
        assert "missing" not in words
        assert all(part in words for part in ("2026-05-28 20:26 UTC", "same command"))
    content = json.loads(run_cli("status", str(ledger.outdir), "--json").stdout)
    assert content["followed_until"] == 1_780_000_000
    with hold_lease(ledger):
        assert "followed" not in run_cli("status", str(ledger.outdir)).stdout
    transfer(make_ledger(tmp_path / "alerts" / "other", plan), plan, plan.ranges[0])
    assert "1 of 2 topics" in run_cli("status", str(tmp_path / "alerts")).stdout


def test_what_was_limited_says_that_there_is_more_and_a_dataset_that_is_gone_is_not_complete(tmp_path: Path) -> None:
    plan = replace(make_plan([OffsetRange(0, 0, 20)]), limit=20)
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    assert "limit      20 alerts" in run_cli("status", str(ledger.outdir)).stdout
    assert json.loads(run_cli("status", str(ledger.outdir), "--json").stdout)["limit"] == 20
    ledger.outdir.rename(tmp_path / "moved")
    for place in (ledger.outdir, tmp_path):  # alone, and as one of several
        result = run_cli("status", str(place))
        assert (result.returncode, "missing" in result.stdout + result.stderr) == (1, True)
        assert "complete" not in result.stdout


def test_a_script_that_looks_is_not_ended_by_what_it_sees_and_one_that_verifies_is(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 20), OffsetRange(1, 0, 20)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    for place in (ledger.outdir, tmp_path):  # alone, and as one of several
        looked = run_cli("status", str(place), "--json")
        assert (looked.returncode, json.loads(looked.stdout)["state"]) == (0, "interrupted")
        assert run_cli("verify", str(place)).returncode == 1


def test_a_place_where_nothing_is_is_not_one_where_nothing_was_planned_yet(tmp_path: Path) -> None:
    looked = run_cli("status", str(tmp_path / "nowhere" / "alerts"))
    assert looked.returncode == 1
    assert str(tmp_path / "nowhere" / "alerts") in looked.stderr
    assert "planned" not in looked.stderr


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_mistyped_dataset_is_said_with_the_one_that_is_there(command: str, tmp_path: Path) -> None:
    make_ledger(tmp_path / "alerts", make_plan([OffsetRange(0, 0, 1)]))
    for typed, is_like_it in (("alrts", True), ("alerts.fink", True), ("x", False)):
        result = run_cli(command, typed, cwd=tmp_path)
        assert result.returncode == 1
        assert bool(re.search(rf"{re.escape(str(tmp_path / 'alerts'))}(?!\.fink)\b", result.stderr)) == is_like_it
        assert result.stderr.count("\n") == 1
