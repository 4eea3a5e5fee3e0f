"""Where the time of a run went is said when it is asked for, and kept beside the dataset, where it disturbs nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import unseal
from fink_dask.ledger.restart import set_aside
from fink_dask.progress.profile import STAGES
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import add_alerts, assert_exactly_once, fill_topic

pytestmark = pytest.mark.commands

LIGHT = AlertKind.ZTF_LIGHT


def profiles(outdir: Path) -> list[dict[str, Any]]:
    """Read the profiles that a ledger keeps, in the order of their runs."""
    paths = sorted((Ledger(outdir).path / "profiles").iterdir())
    assert [path.name for path in paths] == [f"{number:08d}.json" for number in range(1, len(paths) + 1)]
    return [unseal("profile", path) for path in paths]


def test_each_run_that_adds_something_keeps_its_profile_and_the_last_one_can_be_read(
    kafka: Any, topic_name: str, dask_scheduler: str, tmp_path: Path
) -> None:
    outdir = tmp_path / "out"
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 300, partitions=3)
    arguments = transfer_arguments(kafka, topic_name, outdir, "--scheduler", dask_scheduler)

    printed = run_cli(*arguments, "--profile")
    assert printed.returncode == 0, printed.stderr
    lines = {line.split()[0] for line in printed.stdout.splitlines()}
    assert lines >= set(STAGES)
    assert "first batch" in printed.stdout
    (first,) = profiles(outdir)
    assert (first["ranges"], first["alerts"]) == (3, 300)
    assert first["raw_bytes"] == sum(map(len, oracle.values.values()))
    assert set(first["stage_seconds"]) == set(STAGES)
    assert all(seconds >= 0 for seconds in first["stage_seconds"].values())

    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 100, seed=3, first_id=5000)
    told = json.loads(run_cli(*arguments, "-profile", "--json").stdout)
    assert profiles(outdir) == [first, told["profile"]]
    assert told["profile"]["alerts"] == told["run_alerts"] == 100
    spent = sum(told["profile"][f"{phase}_seconds"] for phase in ("start", "work", "finish"))
    assert spent == pytest.approx(told["run_seconds"])

    nothing = run_cli(*arguments, "--json")
    assert "profile" not in json.loads(nothing.stdout)
    nothing = run_cli(*arguments, "--json", "--profile")
    assert json.loads(nothing.stdout)["profile"]["ranges"] == 0
    assert len(profiles(outdir)) == 2

    for command in ("verify", "status"):
        result = run_cli(command, str(outdir), "--json")
        assert (result.returncode, json.loads(result.stdout)["state"]) == (0, "complete"), result.stderr

    again = run_cli(*arguments, "--restart", "--yes")
    assert again.returncode == 0, again.stderr
    assert [profile["alerts"] for profile in profiles(outdir)] == [400]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.fink"]
    assert_exactly_once(outdir, oracle.values)


def test_a_restart_moves_the_profiles_aside_and_a_missing_number_is_not_written_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    for ranges in (1, 2, 3):
        ledger.add_profile({"ranges": ranges})
    (ledger.profiles_path / "00000001.json").unlink()
    ledger.add_profile({"ranges": 4})
    left = {path.name: unseal("profile", path)["ranges"] for path in ledger.profiles_path.iterdir()}
    assert left == {"00000002.json": 2, "00000003.json": 3, "00000004.json": 4}
    aside = set_aside(ledger)
    assert not ledger.path.exists()
    assert len(list((aside / "out.fink" / "profiles").iterdir())) == 3
