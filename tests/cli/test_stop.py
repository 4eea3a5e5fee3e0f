"""Wherever a signal comes, a command ends as one that was stopped."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fink_dask.cli.stopped import failure_as_json
from fink_dask.errors import BrokerUnavailableError, TransferError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.topics import TopicChoice
from fink_dask.ledger.summary import Arrival, Phase, write_arrival
from fink_dask.settings import KafkaSettings, TransferSettings
from tests.harness.cli import PROGRAM, environment, remarks
from tests.harness.kafka_settings import HOST
from tests.harness.ledgers import make_ledger, make_plan, transfer

#: What fastavro does, and other compiled code, when a signal comes in its middle.
_FILL = """
import os, signal
import fink_dask.cli.main as main

@main.cli.command("fill")
def fill():
    try:
        os.kill(os.getpid(), signal.{name})
    except KeyboardInterrupt as stopped:
        raise SystemError("<cyfunction _validate> returned a result with an exception set") from stopped

main.main(["fill"])
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_the_middle_of_compiled_code_is_no_bug(name: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILL.format(name=name)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert all(words in line for words in ("fink-dask: stopped", "safe", "same command"))


def test_who_stops_a_look_at_a_kafka_is_not_told_that_something_is_safe() -> None:
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        looking = [*PROGRAM, "topics", "--servers", f"{HOST}:{silent.getsockname()[1]}"]
        with subprocess.Popen(looking, stderr=subprocess.PIPE, text=True, env=environment()) as command:
            silent.accept()
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=300)
    assert command.returncode == 130
    assert remarks(err) == ["fink-dask: stopped"]


_COLLECT = """
import gc, os, signal, time
import fink_dask.cli.main as main

def collected(phase, info):
    if phase == "stop" and not seen:
        seen.append(phase)
        os.kill(os.getpid(), signal.SIGINT)

@main.cli.command("fill")
def fill():
    gc.callbacks.append(collected)
    gc.collect()
    time.sleep(300)

seen = []
main.main(["fill"])
"""


def test_a_signal_that_python_drops_while_it_collects_garbage_stops_in_good_order() -> None:
    done = subprocess.run([sys.executable, "-c", _COLLECT], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 130
    assert "stopped" in done.stderr, "what ends after eight seconds leaves files behind"
    assert len(done.stderr.splitlines()) == 1


_START = """
import os, signal, threading
import fink_dask.cli.main as main
from fink_dask.cli.stopped import run_apart

def start(thread, start=threading.Thread.start):
    start(thread)
    if thread.name.startswith("ThreadPool"):
        os.kill(os.getpid(), signal.SIGINT)

def publish(stop):
    while not stop.wait(0.01):
        pass

@main.cli.command("fill")
def fill():
    threading.Thread.start = start
    run_apart(publish)

main.main(["fill"])
"""


def test_a_signal_while_the_thread_of_a_demo_starts_stops_it_in_good_order() -> None:
    done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1, "it went on publishing until it was ended after eight seconds"


_UNHEEDED = """
import os, signal, sys, threading, time, traceback
import fink_dask.cli.main as main
from fink_dask.cli.stopped import run_apart

def is_waiting():
    calls = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident])
    return calls[-1].name == "wait" and "submit" not in [call.name for call in calls]

def publish(stop):
    while not all(is_waiting() for _ in range(5)):
        time.sleep(0.01)
    # What another thread gets does not wake the main one, as what comes just before it waits does not.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.kill(os.getpid(), signal.SIGINT)
    print(stop.wait(30))

@main.cli.command("fill")
def fill():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    run_apart(publish)

main.main(["fill"])
"""


def test_a_signal_that_does_not_wake_a_demo_stops_it_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", _UNHEEDED], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (130, "True\n"), "it went on publishing as if nobody had pressed Ctrl-C"


_TWICE = """
import os, signal, time
import fink_dask.cli.main as main
import fink_dask.cli.stopped as stopped

stopped._SAME_S = {same_s}

@main.cli.command("fill")
def fill():
    with stopped.counting(lambda: 8193):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:  # what takes its time to stop
            time.sleep({pause})
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep({last})

main.main(["fill"])
"""


def _sent_twice(same_s: float, pause: float, last: float) -> subprocess.CompletedProcess[str]:
    code = _TWICE.format(same_s=same_s, pause=pause, last=last)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)


def test_a_second_signal_ends_it_at_once_and_says_so() -> None:
    done = _sent_twice(0.2, 1, 300)
    assert (done.returncode, "at once" in done.stderr) == (130, True), done.stderr
    assert "8,193 alerts" in done.stderr


def test_a_signal_that_timeout_sends_to_the_command_and_its_group_stops_it_in_good_order() -> None:
    done = _sent_twice(60, 0, 0)
    assert (done.returncode, "at once" in done.stderr) == (130, False), done.stderr


_HEEDLESS = """
import os, signal, sys
import fink_dask.__main__ as start
import fink_dask.cli.main as main

@main.cli.command("fill")
def fill():
    os.kill(os.getpid(), signal.{name})
    print("done")

sys.argv = ["fink-dask", "fill"]
start.main()
"""
_NOHUP, _BEHIND = ["nohup"], ["sh", "-c", '"$@" & wait $!', "sh"]


@pytest.mark.parametrize(
    ("before", "name", "code"),
    [(_NOHUP, "SIGHUP", 0), (_BEHIND, "SIGINT", 0), (_NOHUP, "SIGTERM", 143), (_BEHIND, "SIGTERM", 143)],
    ids=["a closed terminal after nohup", "Ctrl+C behind a shell", "kill after nohup", "kill behind a shell"],
)
def test_what_was_ignored_from_the_start_does_not_end_a_command(before: list[str], name: str, code: int) -> None:
    done = subprocess.run(
        [*before, sys.executable, "-c", _HEEDLESS.format(name=name)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert ("done" in done.stdout) == (code == 0), "a transfer that was to go on by itself was lost"


_BUG = """
import fink_dask.cli.main as main

def fail(*_, **__):
    raise ValueError("a bug")

main.cli.commands["{name}"].callback = fail
main.main(["{name}", "alerts"])
"""


@pytest.mark.parametrize(("name", "has_option"), [("verify", True), ("status", False)])
def test_a_bug_is_one_line_that_says_where_and_names_an_option_only_where_there_is_one(
    name: str, has_option: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BUG.format(name=name)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fink-dask: error: ")
    assert "ValueError: a bug at <string>:5" in line
    assert ("-v" in line) == has_option


def test_a_signal_while_it_is_loaded_ends_it_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [*PROGRAM, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONPATH": str(tmp_path)}),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=300)
    assert (process.returncode, said, complained) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("is_transient", [True, False])
def test_a_silent_kafka_does_not_leave_open_what_is_safe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_transient: bool
) -> None:
    plan = make_plan([OffsetRange(5, 0, 100), OffsetRange(5, 100, 200)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    settings = TransferSettings(plan.identity.topic, ledger.outdir, KafkaSettings("127.0.0.1:1"))
    error = BrokerUnavailableError("nothing came", "t", 5, 100) if is_transient else TransferError("bad")
    with pytest.raises(type(error)), failure_as_json(settings, TopicChoice((settings.topic,)), as_json=False):
        raise error
    said = capsys.readouterr().err
    for words in ("80 alerts", str(ledger.outdir), "partition 5"):
        assert (words in said) == is_transient


def test_a_transfer_that_failed_says_what_it_had_received(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan([OffsetRange(0, 0, 100)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    settings = TransferSettings(plan.identity.topic, ledger.outdir, KafkaSettings("127.0.0.1:1"))

    def fail() -> None:
        write_arrival(ledger, Arrival(time.time(), Phase.RECEIVING, 60, 600, 40, 0.0, 400, None, 99.0, True, 300.0))
        raise TransferError("the line was cut")

    with pytest.raises(TransferError), failure_as_json(settings, TopicChoice((settings.topic,)), as_json=True):
        fail()
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["run_alerts"]) == ("failed", 0)
    assert (said["run_received_bytes"], said["run_wasted_bytes"]) == (640, 40)


#: Does what a transfer does with workers, as far as Python's own processes are concerned, and is killed.
_KILLED = """
import multiprocessing, os, signal
import fink_dask.cli.main
from fink_dask.__main__ import main
from fink_dask.cluster.forkserver import start_forkserver
def run():
    queue = multiprocessing.get_context(start_forkserver()).Queue()
    os.kill(os.getpid(), signal.SIGKILL)
fink_dask.cli.main.main = run
main()
"""


def test_a_kill_is_followed_by_no_words_of_semaphores() -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED], capture_output=True, text=True, timeout=300, check=False)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
