"""Two jobs never work on one output directory, and a dead job does not lock its user out."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.errors import FinkDaskError, LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger import lease as lease_module
from fink_dask.ledger.lease import BEAT_S, DEAD_AFTER_S, Holder, hold_lease, is_held, read_holder
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger, remove_if_unused
from fink_dask.ledger.restart import set_aside
from tests.harness.crash import barrier, kill_self, pipe, run, start
from tests.harness.ledgers import make_ledger, make_plan
from tests.harness.topics import PATIENCE_S

PLAN = make_plan([OffsetRange(0, 0, 1)])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return make_ledger(tmp_path / "alerts", PLAN)


def _leave_lease(ledger: Ledger, host: str, age_s: float, content: bytes | None = None, number: int = 1) -> Path:
    """Leave the lease of a job on another host, `age_s` old by the file system's clock."""
    path = ledger.path / f"lease-{number:08d}.json"
    path.write_bytes(json.dumps(asdict(Holder(host, os.getpid(), "0"))).encode() if content is None else content)
    now = path.stat().st_mtime
    os.utime(path, (now - age_s, now - age_s))
    return path


def _hold_and_die(ledger: Ledger) -> None:
    with hold_lease(ledger):
        kill_self()


def test_a_second_job_is_refused_in_one_line_that_names_the_first(ledger: Ledger) -> None:
    with hold_lease(ledger) as held:
        held.check()
        assert is_held(ledger)
        with pytest.raises(LedgerError, match=rf"process {os.getpid()} on {socket.gethostname()}") as caught:
            hold_lease(ledger).__enter__()
        assert "\n" not in str(caught.value)
        held.check()
    assert not is_held(ledger)
    with hold_lease(ledger):
        pass


def test_a_lease_that_was_given_back_leaves_no_open_file_in_a_notebook(ledger: Ledger) -> None:
    with hold_lease(ledger):
        pass
    assert not [file for file in psutil.Process().open_files() if Path(file.path).is_relative_to(ledger.path)]


def test_the_lease_of_a_dead_job_on_this_host_is_taken_over_at_once(ledger: Ledger) -> None:
    assert run(_hold_and_die, ledger) == -signal.SIGKILL
    assert not is_held(ledger)
    with hold_lease(ledger) as held:
        held.check()


def test_a_killed_job_that_nobody_has_waited_for_locks_nobody_out(ledger: Ledger) -> None:
    child = os.fork()
    if child == 0:
        _hold_and_die(ledger)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it stays a zombie, as under an init that reaps nobody
        assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        assert not is_held(ledger)
        with hold_lease(ledger) as held:
            held.check()
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize(("namespace", "alive"), [("another boot:4026531836", True), ("", False)])
def test_a_job_whose_number_means_nothing_here_is_not_taken_for_dead(
    ledger: Ledger, namespace: str, alive: bool
) -> None:
    # As in a container that has the host's name; leases of before do not say where they are.
    ended = multiprocessing.get_context("spawn").Process()
    ended.start()
    ended.join()
    holder = asdict(Holder(socket.gethostname(), ended.pid or 0, "0", namespace))
    _leave_lease(ledger, socket.gethostname(), 1, json.dumps(holder).encode())
    assert is_held(ledger) == alive


@pytest.mark.parametrize(
    ("age_s", "content", "alive"),
    [
        (0, None, True),
        (DEAD_AFTER_S - 10, None, True),
        (DEAD_AFTER_S + 1, None, False),
        (1e9, None, False),
        (0, b"", True),
        (DEAD_AFTER_S + 1, b"", False),
        (DEAD_AFTER_S + 1, b'{"host": "x", "pid": "1", "nonce": "0"}', False),
        (DEAD_AFTER_S + 1, b'{"host": "x", "pid": 1e300, "nonce": "0"}', False),
        (DEAD_AFTER_S + 1, b"[" * 100_000, False),
    ],
)
def test_a_lease_of_another_host_runs_out_by_the_clock_of_the_file_system(
    ledger: Ledger, age_s: float, content: bytes | None, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_lease(ledger, "elsewhere", age_s, content)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert is_held(ledger) == alive
    # Whatever the clock of this host says.
    monkeypatch.setattr(time, "time", lambda: 1e10)
    if alive:
        with pytest.raises(LedgerError, match="is running"):
            hold_lease(ledger).__enter__()
    else:
        with hold_lease(ledger) as held:
            held.check()


@pytest.mark.parametrize(
    ("happens", "held"),
    [
        (lambda ledger, path: os.utime(path), True),
        (lambda ledger, path: _leave_lease(ledger, "third", 200, number=2), True),
        (lambda ledger, path: os.utime(path, (0, 0)), False),
        (lambda ledger, path: path.unlink(), False),
        (lambda ledger, path: None, False),
    ],
    ids=["renewed", "taken over", "given back", "removed", "dead"],
)
def test_a_job_is_seen_to_live_by_whoever_looks_with_a_clock_that_is_ahead(
    ledger: Ledger, happens: Callable[[Ledger, Path], object], held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five minutes ahead of the file system: to verify would call a dataset damaged that is being written.
    path = _leave_lease(ledger, "elsewhere", 300)
    monkeypatch.setattr(time, "sleep", lambda seconds: happens(ledger, path) if seconds > BEAT_S else None)
    assert is_held(ledger) == held


def _hold_until_told(ledger: Ledger, end: Any) -> None:
    with hold_lease(ledger) as held:
        end.send("held")
        end.recv()
        try:
            held.check()
        except LedgerError as error:
            end.send(str(error))
        else:
            end.send("still mine")


def test_a_job_that_stood_still_finds_out_that_it_was_taken_over(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pipe()
    process = start(_hold_until_told, ledger, there)
    assert here.poll(PATIENCE_S)
    assert here.recv() == "held"
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerError, match="is running"):
            hold_lease(ledger).__enter__()
        path = ledger.path / "lease-00000001.json"
        os.utime(path, (1, 1))
        with hold_lease(ledger) as held:
            os.kill(process.pid, signal.SIGCONT)
            here.send("check")
            assert here.poll(PATIENCE_S)
            assert f"process {os.getpid()}" in here.recv()
            process.join(PATIENCE_S)
            held.check()
            assert is_held(ledger), "the late one has given back a lease that was not its own"
    finally:
        process.kill()
        process.join(PATIENCE_S)


def _race(ledger: Ledger, gate: Any, end: Any) -> None:
    gate.wait()
    try:
        with hold_lease(ledger) as held:
            end.send("won")
            end.recv()
            held.check()
            end.send("kept")
    except FinkDaskError as error:
        end.send(str(error))


def test_of_jobs_that_race_for_a_dead_lease_one_wins(tmp_path: Path) -> None:
    for attempt in range(12):
        ledger = make_ledger(tmp_path / str(attempt), PLAN)
        _leave_lease(ledger, "elsewhere", 1e6)
        gate, pipes = barrier(3), [pipe() for _ in range(3)]
        processes = [start(_race, ledger, gate, there) for _, there in pipes]
        answers = []
        for here, _ in pipes:
            assert here.poll(PATIENCE_S)
            answers.append(here.recv())
        assert answers.count("won") == 1
        assert sum("is running" in answer for answer in answers) == 2
        winner = pipes[answers.index("won")][0]
        winner.send("check")
        assert winner.poll(PATIENCE_S)
        assert winner.recv() == "kept"
        for process in processes:
            process.join(PATIENCE_S)


def test_a_job_that_looked_long_ago_does_not_push_out_the_one_that_came_since(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_lease(ledger, "elsewhere", 1e6)
    real, looks = lease_module._leases, []

    def stand_still_once(directory: Path) -> list[Path]:
        found = real(directory)
        looks.append(found)
        if len(looks) == 1:
            # Two others came and the second one lives; the number that this job will try is free again.
            found[-1].unlink()
            _leave_lease(ledger, "third", 0, number=3)
        return found

    monkeypatch.setattr(lease_module, "_leases", stand_still_once)
    with pytest.raises(LedgerError, match="on third"):
        hold_lease(ledger).__enter__()
    assert [path.name for path in real(ledger.path)] == ["lease-00000003.json"]


def test_leases_do_not_pile_up(ledger: Ledger) -> None:
    for _ in range(5):
        with hold_lease(ledger):
            pass
    assert len([path for path in ledger.path.iterdir() if "lease" in path.name]) == 1


def test_a_ledger_that_came_to_nothing_can_be_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "alerts")
    made = create_ledger(ledger)
    with hold_lease(ledger):
        pass
    remove_if_unused(ledger, made)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_at_the_end_leaves_no_lease_that_this_process_holds(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Ledger) -> bool:
        raise StorageError("Stale file handle: alerts.fink")

    with monkeypatch.context() as patch, hold_lease(ledger):
        patch.setattr(Ledger, "exists", fail)
    assert not is_held(ledger)


def test_a_store_that_can_not_be_read_for_a_moment_does_not_end_a_job(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> Holder | None:
        raise StorageError("the store does not answer")

    with hold_lease(ledger) as held:
        with monkeypatch.context() as patch:
            patch.setattr(lease_module, "read_holder", fail)
            held.check()
        held.check()


def test_a_job_whose_ledger_was_moved_finds_out_and_leaves_the_new_one_alone(ledger: Ledger) -> None:
    with hold_lease(ledger) as held:
        set_aside(ledger)
        with pytest.raises(LedgerError, match="moved"):
            held.check()
        make_ledger(ledger.outdir, PLAN)
        with hold_lease(ledger) as new:
            with pytest.raises(LedgerError, match=f"process {os.getpid()}"):
                held.check()
            new.check()
            assert read_holder(ledger.path / "lease-00000001.json") == new.holder


def test_a_link_that_succeeds_and_says_it_exists_is_a_lease(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def like_nfs(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    monkeypatch.setattr(os, "link", like_nfs)
    with hold_lease(ledger) as held:
        held.check()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_is_named_before_anything_is_consumed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    _refuses_to_begin(ledger)


def test_a_file_system_that_links_within_a_directory_only_is_named_before_anything_is_consumed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def like_afs(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    monkeypatch.setattr(os, "link", like_afs)
    _refuses_to_begin(ledger)


def test_a_file_system_that_makes_a_symbolic_link_instead_is_named_before_anything_is_consumed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", os.symlink)  # as BeeGFS can be set up to do
    _refuses_to_begin(ledger)


def _refuses_to_begin(ledger: Ledger) -> None:
    before = sorted(ledger.path.rglob("*"))
    with pytest.raises(StorageError, match="hard links"):
        hold_lease(ledger).__enter__()
    assert sorted(ledger.path.rglob("*")) == before


def test_a_ledger_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        hold_lease(Ledger(tmp_path / "alerts")).__enter__()
    assert not is_held(Ledger(tmp_path / "alerts"))
