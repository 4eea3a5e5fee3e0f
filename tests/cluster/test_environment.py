"""What a batch job finds around it, and what users have set for their other programs, stops no transfer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fink_dask.__main__ import _have_a_home
from fink_dask.store.location import locate
from tests.alerts.made_up import AlertKind
from tests.harness.cli import environment, run_cli, transfer_arguments
from tests.harness.oracle import assert_exactly_once, fill_topic

#: What is right for somebody's clusters, and wrong here.
OTHERS = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    "DASK_DISTRIBUTED__DASHBOARD__LINK": "/user/{JUPYTERHUB_USER}/proxy/{port}/status",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": "['no_such_module']",
    "DASK_DISTRIBUTED__NANNY__PRELOAD": "['no_such_module']",
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['no_such_module']",
    "DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION": "2s",
    "DASK_DISTRIBUTED__WORKER__RESOURCES__GPU": "1",
    "DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:8",
}
#: What is transferred in the command's own process, and what workers are started for.
COUNTS = (50, 12_000)
#: Modules of Python and of what a transfer uses, whose names a user's script may have.
NAMES = (
    *("random", "secrets", "copy", "select", "code", "signal", "threading", "multiprocessing", "queue", "types"),
    *("numpy", "pyarrow", "dask", "yaml", "fink_dask", "tempfile", "socket"),
)


@pytest.mark.parametrize("count", COUNTS)
def test_a_configuration_of_dask_that_is_made_for_other_clusters_stops_no_transfer(
    kafka: Any, topic_name: str, tmp_path: Path, count: int
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, count, partitions=2)
    done = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out"), env=OTHERS, afresh=True)
    assert done.returncode == 0, done.stderr
    assert_exactly_once(tmp_path / "out", oracle.values)


def test_a_user_without_a_home_finds_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user's number has no name
    _have_a_home()
    assert os.environ["HOME"] == "/nonexistent"


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_in_the_working_directory_is_never_imported_and_neither_a_long_tmpdir_nor_no_compiler_matters(
    kafka: Any, topic_name: str, tmp_path: Path, count: int
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, count, partitions=2)
    here, temporary = tmp_path / "here", tmp_path / ("t" * 100)
    temporary.mkdir()
    here.mkdir()
    for name in NAMES:
        (here / f"{name}.py").write_text("raise SystemExit('a file of the working directory was run')\n")
    (here / "lz4").mkdir()
    env = {"TMPDIR": str(temporary), "NUMBA_DISABLE_JIT": "1", "OPENBLAS_NUM_THREADS": "1"}
    # As it is installed: 'python -m' looks there by itself, before any of this is loaded.
    program = Path(sys.executable).with_name("fink-dask")
    done = subprocess.run(
        [program, *transfer_arguments(kafka, topic_name, tmp_path / "out")],
        env=environment(env),
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "was run" not in done.stderr + done.stdout
    assert_exactly_once(tmp_path / "out", oracle.values)


@pytest.mark.parametrize("how", ["option", "variable", "file"])
def test_a_tilde_that_no_shell_has_seen_is_the_home(how: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "settings.toml").write_text('outdir = "~/alerts"\npassword-file = "~/pw"\n')
    arguments = {"option": ("--outdir=~/alerts", "--password-file=~/pw"), "file": ("--config", "settings.toml")}
    env = {"HOME": str(tmp_path / "home")}
    if how == "variable":
        env |= {"FINK_DASK_OUTDIR": "~/alerts", "FINK_DASK_PASSWORD_FILE": "~/pw"}
    typed = ("transfer", "--topic", "ftransfer_ztf_2026-11-22_1", "--bootstrap-servers", "127.0.0.1:1")
    more = ("--security-protocol", "SASL_PLAINTEXT", "--username", "ada", *arguments.get(how, ()))
    done = run_cli(*typed, *more, env=env, cwd=tmp_path)
    assert f"can't read {tmp_path}/home/pw" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"home", "settings.toml"}


@pytest.mark.parametrize("place", ["C:\\data\\alerts", "D:/alerts", "\\\\server\\alerts"])
def test_a_path_of_windows_is_no_name_of_a_file(place: str, tmp_path: Path) -> None:
    done = run_cli("status", place, cwd=tmp_path)
    assert done.returncode == 2
    assert "Windows" in done.stderr


def test_a_variable_that_no_shell_has_replaced_makes_no_directory_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('outdir = "$HOME/alerts"\ntopic = "ftransfer_ztf_2026-11-22_1"')
    done = run_cli("transfer", "--config", "settings.toml", "--bootstrap-servers", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2
    assert "$HOME" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"]
    (tmp_path / "$HOME").mkdir()
    assert locate(tmp_path / "$HOME" / "alerts") == tmp_path / "$HOME" / "alerts", "one that is there is one"
