"""What is not run can't fail: every test is some target's, and a run that leaves one out is not green."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.environments import ROOT
from tests.harness.targets import TARGETS

#: What `make test-TARGET` is called for a marker, where it has another name.
NAMES = {"batch": ["test-cluster"], "environments": ["test-oldest", "test-pythons"]}
#: Targets that `.ci/run` takes no turn for: it has no other Pythons.
NOT_IN_TURN = {"test-pythons"}


def test_every_target_is_one_of_make_and_takes_its_turn() -> None:
    wanted = {name for marker in TARGETS for name in NAMES.get(marker, [f"test-{marker}"])}
    listed = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert wanted <= set(re.findall(r"^make (\S+)", listed, re.MULTILINE))
    further = re.search(r"^further=\(\n((?s:.*?))^\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert further is not None
    turns = re.findall(r'"([^"]+)"', further[1])
    assert len(turns) <= 12
    assert {word for turn in turns for word in turn.split() if "=" not in word} == {"test-fuzz", *wanted} - NOT_IN_TURN


@pytest.mark.parametrize("name", [name for name in TARGETS if (ROOT / name).is_dir()])
def test_a_target_that_is_called_like_a_directory_is_not_taken_for_it(name: str) -> None:
    recipe = subprocess.run(["make", "-C", str(ROOT), "-n", f"test-{name}"], capture_output=True, text=True, check=True)
    (asked,) = re.findall(r"--target\S*(?: \w+)?", recipe.stdout)
    command = [sys.executable, "-m", "pytest", *asked.split(), "--markers"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder, counted as these are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    plugins = [part for name in ("targets", "completeness", "forked") for part in ("-p", f"tests.harness.{name}")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), *plugins, *options, str(folder)],
        env={**env, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one process", "two"])
def test_a_run_that_leaves_a_test_out_fails_and_names_it(tmp_path: Path, processes: list[str]) -> None:
    # Whoever ends a run in this way wants it to be green.
    (tmp_path / "conftest.py").write_text(
        "def pytest_runtest_protocol(item, nextitem):\n    return True if item.name == 'test_two' else None\n"
    )
    (tmp_path / "test_toy.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    ended = run_pytest(tmp_path, *processes)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    assert "1 of 2 tests did not run" in ended.stdout
    assert "test_two" in ended.stdout
    if not processes:
        assert run_pytest(tmp_path, "-k", "one").returncode == 0


def test_a_target_runs_what_is_marked_for_it_and_a_sample_is_run_every_day(tmp_path: Path) -> None:
    (tmp_path / "test_toy.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.kills\n"
        "def test_long(): pass\n"
        "@pytest.mark.sample\ndef test_sample(): pass\n"
        "@pytest.mark.stores\ndef test_of_another(): pass\n"
    )
    ran = {
        target: set(re.findall(r"::(test_\w+)", run_pytest(tmp_path, "-v", "--target", target).stdout))
        for target in ("test", "kills", "all")
    }
    assert ran == {
        "test": {"test_sample"},
        "kills": {"test_long"},
        "all": {"test_long", "test_sample", "test_of_another"},
    }


MAKEFILE = """
venv lint types docs:
\t@true
test:
\t@echo "===== 3 passed in 1.0s ====="
test-silent:
\t@true
test-red:
\t@echo "===== 1 failed, 3 passed in 1.0s ====="; exit 1
test-slow:
\t@echo "===== 3 passed in 1.0s ====="; sleep 100
"""


@pytest.mark.parametrize(
    ("further", "status"), [("test", 0), ("test-silent", 1), ("test-red", 1), ("test-slow", 1), ("no-such-target", 1)]
)
def test_what_is_red_silent_or_cut_off_by_its_time_limit_fails_the_run(
    tmp_path: Path, further: str, status: int
) -> None:
    script = (ROOT / ".ci" / "run").read_text()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text(
        script.replace("run_tests 900", f"run_tests {1 if further == 'test-slow' else 60}")
    )
    (tmp_path / "Makefile").write_text(MAKEFILE)
    # What make sets for these tests is not for the toy's; shells that are missing here are not to be installed for it.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for shell in ("zsh", "fish"):
        (tmp_path / shell).symlink_to("/bin/true")
    env["PATH"] += f":{tmp_path}"
    ended = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path, env={**env, "FURTHER": further}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "===== 3 passed in 1.0s ====="


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, test processes are started")
def test_test_processes_are_forked_from_one_that_has_loaded_the_tests_and_one_that_dies_fails_its_test(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_a.py").write_text(
        f"import os, sys\n"
        f"open({str(tmp_path / 'loaded')!r}, 'a').write('x')\n"
        f"def test_it_is_what_it_would_be():\n"
        f"    main = sys.modules['__main__']\n"
        f"    assert (sys.argv, main.__spec__, hasattr(main, '__file__')) == (['-c'], None, False)\n"
        f"    assert os.getcwd() == {str(tmp_path)!r}\n"
        f"def test_it_dies():\n"
        f"    os.abort()\n"
        f"def test_another_runs_the_next_one():\n"
        f"    pass\n"
    )
    ended = run_pytest(tmp_path, "-n", "2")
    assert ended.returncode == 1
    assert "1 failed, 2 passed" in ended.stdout
    assert "test_it_dies" in ended.stdout
    assert (tmp_path / "loaded").read_text() == "x"
