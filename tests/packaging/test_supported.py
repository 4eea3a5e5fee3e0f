"""The promised Pythons, and the oldest libraries that are allowed: the wheel, its demo and tests of each stage.

They make environments of their own, which takes minutes: ``make test-pythons`` and ``make test-oldest`` run them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.environments import (
    PYTHONS,
    ROOT,
    Distributions,
    Environment,
    find_python,
    make_environment,
    project,
    write_locked,
    write_oldest,
)

FOUND = {version: python for version in PYTHONS if (python := find_python(version))}
#: What the tests below need besides.
TOOLS = (
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "nbclient",
    "ipykernel",
    "polars",
    "psutil",
    "trustme",
    "packaging",
)
EXTRAS = ("dataframe", "hpc", "notebook", "report", "s3")
#: Of each stage one: Kafka, decoder, writer, object store, the job in processes, its page, batch jobs, cutouts, Python,
#: options.
STAGES = (
    "tests/kafka/test_reader.py",
    "tests/avro/test_decoder.py",
    "tests/dataset/test_writer.py",
    "tests/dataset/test_read.py",
    "tests/store/test_objects.py",
    "tests/cluster/test_end_to_end.py",
    "tests/dashboard/test_board.py",
    "tests/cluster/test_job_options.py",
    "tests/dataset/test_cutouts.py",
    "tests/api",
    "tests/cli/test_options.py",
)

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that is removed at once: an environment is half a gigabyte."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def assert_works(environment: Environment, built: Distributions, folder: Path) -> None:
    """Run the demo, then tests of the source distribution, with the package from the wheel alone."""
    demo = environment.run("fink-dask", "demo", "--alerts", "200", cwd=folder)
    assert demo.returncode == 0, demo.stderr[-3000:]
    assert "complete: 200 offsets, 200 alerts" in demo.stdout
    source = built.unpack(folder / "source")
    shutil.rmtree(source / "fink_dask")
    ended = environment.run(
        *("python", "-m", "pytest", "-q", "-x", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", *STAGES),
        cwd=source,
        more={"FINK_DASK_TEST_CACHE": str(ROOT / ".cache")},
        timeout_s=1200,
    )
    assert ended.returncode == 0, ended.stdout[-6000:]


def test_the_machine_has_the_python_that_everything_else_is_tested_on() -> None:
    missing = sorted(set(PYTHONS) - set(FOUND))
    sys.stderr.write(f"Pythons: {', '.join(FOUND)}{'; not here: ' if missing else ''}{', '.join(missing)}\n")
    assert FOUND


@pytest.mark.parametrize("version", FOUND)
def test_a_promised_python_runs_the_demo_and_each_stage(version: str, built: Distributions, folder: Path) -> None:
    environment = make_environment(folder / "env", FOUND[version])
    wheel = f"{built.wheel}[{','.join(EXTRAS)}]"
    environment.install("--constraint", str(write_locked(folder / "locked.txt")), wheel, *TOOLS)
    assert_works(environment, built, folder)


def test_the_oldest_libraries_that_are_allowed_run_the_demo_and_each_stage(built: Distributions, folder: Path) -> None:
    # pip takes the newest of all that these bring along, as it would for a user.
    described = project()
    requirements = [
        *described["dependencies"],
        *(each for name in EXTRAS for each in described["optional-dependencies"][name]),
    ]
    environment = make_environment(folder / "env", FOUND[PYTHONS[0]])
    oldest = write_oldest(folder / "oldest.txt", requirements)
    environment.install("--constraint", str(oldest), f"{built.wheel}[{','.join(EXTRAS)}]", *TOOLS)
    assert_works(environment, built, folder)
