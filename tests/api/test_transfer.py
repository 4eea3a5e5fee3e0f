"""Transfers from Python: from a script, in a notebook, on somebody's own cluster."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from distributed import Client
from nbclient import NotebookClient

import fink_dask
from fink_dask.api.settings import kafka_of, transfer_settings
from fink_dask.cluster.client import open_client
from fink_dask.cluster.local import usable_cores
from fink_dask.errors import FinkDaskError, LedgerError, SettingsError
from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind
from tests.harness.cli import SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, assert_values_equal, fill_topic, wait_for

COUNT = 2000


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=3)


def _run_script(
    tmp_path: Path, body: str, *arguments: str, guarded: bool = True, is_piped: bool = False
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    head = 'if __name__ == "__main__":' if guarded else "if True:"
    script.write_text(
        f"import os, sys\nimport fink_dask\n{head}\n" + "".join(f"    {line}\n" for line in body.split("\n"))
    )
    return subprocess.run(
        [sys.executable, "-" if is_piped else str(script), *arguments],
        input=script.read_text() if is_piped else "",
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_script_transfers_proves_and_opens_a_dataset(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    body = """\
names = "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"
settings = [os.environ.get(name) for name in names]
looked = fink_dask.plan(sys.argv[2], "alerts", sys.argv[1], partitionby="time")
done = fink_dask.transfer(sys.argv[2], "alerts", sys.argv[1], partitionby="time", dashboard_address="127.0.0.1:0")
assert settings == [os.environ.get(name) for name in names]
print(looked.offsets, done.summary.alerts, done.is_complete, done.dataset.count_rows(), done.outdir.name)
print(fink_dask.verify("alerts").problems)"""
    ended = _run_script(tmp_path, body, kafka.bootstrap_servers, topic)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{COUNT} {COUNT} True {COUNT} alerts\n()\n"
    assert f"{COUNT:,} offsets" in ended.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)
    assert_values_equal(fink_dask.open_dataset(tmp_path / "alerts").to_table(), oracle, every=50)


@pytest.mark.commands
def test_a_script_that_is_read_from_standard_input_transfers_and_keeps_its_name(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    body = """\
fink_dask.transfer(sys.argv[2], "alerts", sys.argv[1], dashboard_address="127.0.0.1:0")
print(__file__)"""
    ended = _run_script(tmp_path, body, kafka.bootstrap_servers, topic, is_piped=True)
    assert (ended.returncode, ended.stdout) == (0, "<stdin>\n"), ended.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_a_script_that_its_workers_would_run_again_is_told_so(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    body = 'fink_dask.transfer(sys.argv[2], "alerts", sys.argv[1], dashboard_address="127.0.0.1:0")'
    ended = _run_script(tmp_path, body, kafka.bootstrap_servers, topic, guarded=False)
    assert ended.returncode == 1
    assert "__main__" in ended.stderr.splitlines()[-1]
    assert not Ledger(tmp_path / "alerts").exists()


def test_an_interrupt_is_safe_and_the_command_line_goes_on(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""\
from dataclasses import replace

import fink_dask
from fink_dask.api import transfer

if __name__ == "__main__":
    made = transfer.transfer_settings
    # It then takes some seconds.
    transfer.transfer_settings = lambda *given, **more: replace(made(*given, **more), batchsize=1)
    fink_dask.transfer({topic!r}, "alerts", {kafka.bootstrap_servers!r}, nconsumers=1, dashboard_address="127.0.0.1:0")
"""
    )
    running = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(SLOWLY), stderr=subprocess.PIPE, text=True
    )
    ledger = Ledger(tmp_path / "alerts")
    wait_for(lambda: running.poll() is not None or (ledger.exists() and bool(ledger.staged())), "the first range")
    running.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        running.wait(4)
    # Python itself loses a signal now and then, where C code clears what its handler has raised.
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)
    assert "KeyboardInterrupt" in said, (running.returncode, said)
    assert running.returncode != 0
    ended = run_cli(*transfer_arguments(kafka, topic, tmp_path / "alerts"))
    assert ended.returncode == 0, ended.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_nothing_of_a_transfer_is_left_in_the_process_of_its_user(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    body = f"""\
import copy, multiprocessing, signal
import dask, distributed, psutil
import look
def state():
    return {{
        "dask": copy.deepcopy(dask.config.config["distributed"]),
        "environment": dict(os.environ),
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
    }}
before = state()
for number in range(2):
    done = fink_dask.transfer({topic!r}, "alerts", {kafka.bootstrap_servers!r}, nconsumers=1, restart=number > 0,
                              progress=False, dashboard_address="127.0.0.1:0")
    assert done.summary.alerts == {COUNT}, done.summary
    for name, now in state().items():
        assert now == before[name], (name, now, before[name])
left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
assert not [words for words in left if "resource_tracker" not in " ".join(words)], left
with multiprocessing.get_context("forkserver").Pool(1) as pool:
    assert pool.apply(look.mask) == set(), "Ctrl+C would never reach it"
    assert not pool.apply(look.has_ours)"""
    (tmp_path / "look.py").write_text(
        "import signal, sys\n\n\n"
        "def mask():\n    return signal.pthread_sigmask(signal.SIG_BLOCK, [])\n\n\n"
        "def has_ours():\n    return 'fink_dask.cluster.preload' in sys.modules\n"
    )
    ended = _run_script(tmp_path, body)
    assert ended.returncode == 0, ended.stderr


def test_a_notebook_shows_a_bar_and_goes_on_with_what_is_there(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    call = f"fink_dask.transfer({topic!r}, 'alerts', {kafka.bootstrap_servers!r}, dashboard_address='127.0.0.1:0'"
    cells = [
        f"import fink_dask\nsome = {call}, limit=700)",
        f"print(some.summary.alerts)\nall_ = {call})\nprint(all_.summary.alerts, all_.summary.run_alerts)",
        "print(fink_dask.verify('alerts').problems)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        notebook, timeout=120, iopub_timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=environment())
    first, second, third = (cell.outputs for cell in notebook.cells)
    for outputs in (first, second, third):
        assert any("application/vnd.jupyter.widget-view+json" in each.get("data", {}) for each in outputs), "no bar"
    assert "700 offsets to read" in "".join(each.get("data", {}).get("text/plain", "") for each in first)
    assert "".join(each.text for each in second if each.output_type == "stream") == f"700\n{COUNT} {COUNT - 700}\n"
    assert "".join(each.text for each in third if each.output_type == "stream") == "()\n"
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_the_workers_of_a_client_do_the_work_and_it_stays_open(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str], dask_scheduler: str
) -> None:
    with open_client(dask_scheduler) as client:
        done = fink_dask.transfer(topic, tmp_path / "found", kafka.bootstrap_servers, columns=["objectId", "magpsf"])
        assert f"Dask dashboard: {client.dashboard_link.removesuffix('/status')}" in capsys.readouterr().err
        assert done.dataset.schema.names == ["magpsf", "objectId", "kafka_partition", "kafka_offset"]
        again = fink_dask.transfer(
            topic, tmp_path / "given", kafka.bootstrap_servers, client=client, partitionby="time", progress=False
        )
        assert again.profile.ranges > 0
        assert capsys.readouterr().err == ""
        bright = fink_dask.transfer(topic, tmp_path / "bright", kafka.bootstrap_servers, where="magpsf < 18")
        assert 0 < bright.summary.alerts == COUNT - bright.summary.filtered < COUNT
        assert client.submit(len, "abc").result() == 3
    assert_exactly_once(tmp_path / "found", oracle.values)
    assert_exactly_once(tmp_path / "given", oracle.values)


def test_threads_of_this_process_do_as_well(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"):
        assert fink_dask.transfer(topic, tmp_path / "alerts", kafka.bootstrap_servers).is_complete
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_a_cluster_of_the_user_s_own_is_told_how_each_transfer_ended(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    def states(dask_scheduler: Any = None) -> list[str]:
        return [known.report.state for known in dask_scheduler.extensions["fink_dask"].transfers.values()]

    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        fink_dask.transfer(topic, tmp_path / "one", kafka.bootstrap_servers, progress=False)
        fink_dask.transfer(topic, tmp_path / "two", kafka.bootstrap_servers, progress=False)
        assert client.run_on_scheduler(states) == ["done", "done"]


def test_a_plan_writes_nothing_and_what_is_damaged_is_told(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    assert fink_dask.plan(topic, outdir, kafka.bootstrap_servers, columns="objectId").offsets == COUNT
    assert list(tmp_path.iterdir()) == []
    with Client(processes=False, dashboard_address="127.0.0.1:0"):
        fink_dask.transfer(topic, outdir, kafka.bootstrap_servers, progress=False)
    assert fink_dask.plan(topic, outdir, kafka.bootstrap_servers).offsets == 0
    file = next(outdir.rglob("*.parquet"))
    os.truncate(file, 100)
    found = fink_dask.verify(outdir, progress=False)
    assert found.summary.state == "failed"
    assert not found.is_complete
    assert any(file.name in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"columns": "objectId,,candid"}, "columns"),
        ({"partitionby": ["time", "time"]}, "partitionby"),
        ({"memory_limit": "much"}, "memory_limit 'much'"),
        ({"survey": "sdss"}, "survey 'sdss'"),
        ({"compression": "zip"}, "compression zip"),
        ({"limit": 0}, "limit 0"),
        ({"limit_rate": "fast"}, "limit_rate 'fast'"),
        ({"limit_rate": 5}, "limit_rate 5"),
        ({"reconnect_timeout": "soon"}, "reconnect_timeout 'soon'"),
        ({"reconnect_timeout": 0}, "reconnect_timeout 0"),
        ({"schema": "/nowhere/schema.json"}, "/nowhere/schema.json"),
        ({"columns": ["nothing"]}, "nothing"),
        ({"where": "magpsf < "}, "where column"),
        ({"limit": 1, "where": "magpsf < 18"}, "where"),
        ({"outformat": "avro", "columns": "objectId"}, "outformat='avro' columns"),
        ({"security_protocol": "SASL_SSL"}, "username=NAME"),
        ({"security_protocol": "SASL_SSL", "username": "ada"}, "password_file"),
        ({"partition_by": "time"}, "'partition_by'"),
        ({"limit": "5"}, "limit '5'"),
        ({"columns": ["objectId", 3]}, "3"),
        ({"client": "tcp://127.0.0.1:1"}, "distributed.Client"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_refused_in_a_line(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    for call in (fink_dask.transfer, fink_dask.plan):
        with pytest.raises(FinkDaskError) as caught:
            call(topic, tmp_path / "alerts", kafka.bootstrap_servers, **settings)
        assert all(word in str(caught.value) for word in words.split())
        assert "\n" not in str(caught.value)
        assert "--" not in str(caught.value), "an option of the command line"
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_times_and_rates_are_numbers_or_text() -> None:
    for timeout, rate in ((600, 5_000_000), ("10m", "40Mbit/s")):
        kafka = kafka_of("topic", "ztf", "127.0.0.1:1", "transfer", reconnect_timeout=timeout, limit_rate=rate)
        assert (kafka.reconnect_timeout_s, kafka.limit_rate) == (600, 5_000_000)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:1x", "127.0.0.1:\N{SUPERSCRIPT TWO}"])
def test_an_address_that_is_none_is_refused_in_a_line(kafka: Any, topic: str, tmp_path: Path, address: str) -> None:
    with pytest.raises(SettingsError, match=f"^dashboard_address .*'{re.escape(address)}'.* HOST:PORT$"):
        fink_dask.transfer(topic, tmp_path / "alerts", kafka.bootstrap_servers, dashboard_address=address)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_dataset_that_is_begun_names_arguments(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    with Client(processes=False, dashboard_address="127.0.0.1:0"):
        fink_dask.transfer(topic, tmp_path / "alerts", kafka.bootstrap_servers, progress=False)
        with pytest.raises(SettingsError, match=r"columns .*candid.* outdir .*restart=True"):
            fink_dask.transfer(topic, tmp_path / "alerts", kafka.bootstrap_servers, columns="candid", progress=False)


def test_a_dataset_goes_on_as_it_was_begun_by_a_call_or_a_command(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    with Client(processes=False, dashboard_address="127.0.0.1:0"):
        begun = {"partitionby": "time", "columns": "candid", "where": "candid > 0"}
        for more in (begun, {}, {"columns": ["candid"]}):
            planned = fink_dask.plan(topic, tmp_path / "alerts", kafka.bootstrap_servers, **more)
            assert planned.where == "candid > 0"
            done = fink_dask.transfer(topic, tmp_path / "alerts", kafka.bootstrap_servers, progress=False, **more)
            assert done.is_complete
            assert set(done.dataset.schema.names) >= {"candid", "year"}
        with pytest.raises(SettingsError, match=r"partitionby\b.* time\b"):
            fink_dask.plan(topic, tmp_path / "alerts", kafka.bootstrap_servers, partitionby=())
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_a_client_that_does_not_wait_is_refused(kafka: Any, topic: str, tmp_path: Path) -> None:
    async def transfer() -> None:
        async with Client(processes=False, asynchronous=True, dashboard_address="127.0.0.1:0") as client:
            fink_dask.transfer(topic, tmp_path / "alerts", kafka.bootstrap_servers, client=client)

    with pytest.raises(SettingsError, match="asynchronous"):
        asyncio.run(transfer())


def test_what_is_no_dataset_can_not_be_verified(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=re.escape(str(tmp_path))):
        fink_dask.verify(tmp_path)


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        ({"partitionby": "none"}, "partitionby", ()),
        ({"partitionby": None}, "partitionby", None),
        ({"nconsumers": -1}, "nconsumers", usable_cores()),
        ({"columns": ["objectId", "candid", "objectId"]}, "columns", ("objectId", "candid")),
    ],
    ids=["no partition columns", "nothing given", "all cores", "a name twice"],
)
def test_arguments_mean_what_the_same_words_mean_on_the_command_line(
    tmp_path: Path, given: dict[str, Any], field: str, expected: object
) -> None:
    settings = transfer_settings("topic", tmp_path / "out", "127.0.0.1:1", None, **given)
    assert getattr(settings, field) == expected
