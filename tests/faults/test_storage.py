"""Row 16: the disk is full, out of inodes, read-only, or somebody removes what is there. And row 5: two at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic
from tests.harness.running import Running

COUNT = 9000


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=4)


#: Mount a file system, run the command on it, let the cause go, run it again, and keep what it has written.
SCRIPT = """
disk=$1; kept=$2; small=$3; large=$4; shift 4
mount -t tmpfs -o "$small" none "$disk" || exit 99
"$@" >"$kept/first.out" 2>"$kept/first.err"; echo $? >"$kept/first"
mount -o "remount,$large" "$disk" || exit 99
"$@" >"$kept/second.out" 2>"$kept/second.err"; echo $? >"$kept/second"
cp -r "$disk/." "$kept/disk"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's own")
@pytest.mark.parametrize(
    ("small", "large", "more", "words"),
    [
        pytest.param("size=2m,nr_inodes=1000", "size=300m", [], "2.1 MB", marks=pytest.mark.faults),
        ("size=2m,nr_inodes=1000", "size=300m", ["--force"], "No space"),
        pytest.param("size=300m,nr_inodes=25", "nr_inodes=10000", [], "No space", marks=pytest.mark.faults),
        pytest.param("size=300m,ro", "rw", [], "Read-only file system", marks=pytest.mark.faults),
    ],
    ids=["small", "full", "inodes", "read-only"],
)
def test_16_a_disk_that_takes_no_more_is_one_line_and_the_same_command_goes_on(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, small: str, large: str, more: list[str], words: str
) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    command = transfer_arguments(kafka, topic, disk / "alerts", "-partitionby", "time", *more)
    subprocess.run(
        ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", str(disk), str(kept), small, large, *PROGRAM, *command],
        check=True,
        timeout=300,
        env=environment(),
    )
    said = (kept / "first.err").read_text()
    assert (kept / "first").read_text().strip() == "1", said
    (line,) = [line for line in said.splitlines() if "error" in line]
    assert words in line
    assert "Traceback" not in said
    assert (kept / "second").read_text().strip() == "0", (kept / "second.err").read_text()
    outdir = kept / "disk" / "alerts"
    assert_exactly_once(outdir, oracle.values)
    assert run_cli("verify", str(outdir)).returncode == 0


@pytest.mark.parametrize(
    "removed",
    [pytest.param("staging", marks=pytest.mark.faults), "dataset", pytest.param("ledger", marks=pytest.mark.faults)],
)
def test_16_what_is_removed_in_mid_run_is_never_called_complete(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, removed: str
) -> None:
    running = Running(kafka, topic, tmp_path / "alerts")
    running.wait_until_committed(1)
    ledger = running.ledger
    path = {"staging": ledger.staging_path, "dataset": ledger.outdir, "ledger": ledger.path}[removed]
    shutil.rmtree(path, ignore_errors=True)  # the transfer may write into it meanwhile
    running.hurry()
    code, err = running.finish()
    assert "Traceback" not in err
    arguments = transfer_arguments(kafka, topic, ledger.outdir, "-partitionby", "time")
    if code != 0:
        assert code == 1, err
        again = run_cli(*arguments)
        if again.returncode != 0:
            # What was committed is gone: it is said, and repaired or begun anew as the user is told.
            assert again.returncode == 1
            assert "Traceback" not in again.stderr
            if Ledger(ledger.outdir).exists():
                repaired = run_cli("repair", str(ledger.outdir), *arguments[5:9])
                assert "Traceback" not in repaired.stderr
            else:
                shutil.rmtree(ledger.outdir, ignore_errors=True)
            assert run_cli(*arguments).returncode == 0
    assert_exactly_once(ledger.outdir, oracle.values)
    assert run_cli("verify", str(ledger.outdir)).returncode == 0


@pytest.mark.parametrize("where", ["alerts", "alerts.fink", "alerts/year=2026"])
def test_16_a_file_in_the_way_is_named_and_left_alone(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, where: str
) -> None:
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "alerts", "-partitionby", "time"))
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert path.read_text() == "mine"
