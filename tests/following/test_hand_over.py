"""Who moves files away while a topic is followed has every alert once, here or there, whatever is killed meanwhile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli
from tests.harness.oracle import add_alerts, fill_topic, places
from tests.harness.running import Running

FOLLOW = ("--follow", "--roll-interval", "1s", "--until-count", "500", "-nconsumers", "2")


def _move(outdir: Path, there: Path) -> int:
    """Move what is complete; returns how many files that are."""
    listed = run_cli("hand-over", str(outdir))
    assert listed.returncode == 0, listed.stderr
    for name in listed.stdout.splitlines():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(outdir / name, there / name)
    copied = there.with_name("copied")
    copied.write_text(listed.stdout)
    done = run_cli("hand-over", str(outdir), "--copied", str(copied), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["files"]
    assert isinstance(found, int)
    return found


@pytest.mark.following
def test_files_that_are_moved_away_while_a_topic_is_followed_are_there_once_and_not_missed_here(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 300, partitions=2)
    outdir, there = tmp_path / "alerts", tmp_path / "there"
    running = Running(kafka, topic_name, outdir, *FOLLOW)
    running.wait_until_committed(2)
    assert _move(outdir, there) > 0
    running.kill()
    _move(outdir, there)
    running = Running(kafka, topic_name, outdir, *FOLLOW)
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, AlertKind.ZTF_LIGHT, 200, first_id=300)
    running.hurry()
    code, err = running.finish()
    assert code == 0, err
    both = places(there) + places(outdir)
    assert sorted(both.elements()) == sorted(oracle.values)
    verified = json.loads(run_cli("verify", str(outdir), "--json").stdout)
    assert (verified["state"], verified["alerts"] + verified["handed_over"]) == ("complete", 500)
    assert places(outdir).total() == verified["alerts"]
