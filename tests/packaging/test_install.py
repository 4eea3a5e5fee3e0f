"""What a release uploads installs in an empty environment, and works there."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import fink_dask
from fink_dask.demo.alerts import AlertKind
from tests.harness.environments import (
    ROOT,
    Distributions,
    Environment,
    make_environment,
    project,
    write_locked,
)

#: In the clone only: what starts and checks it.
NOT_IN_SDIST = {".ci/run", ".pre-commit-config.yaml"}

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def installed(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("installed")
    environment = make_environment(folder / "env")
    environment.install("--constraint", str(write_locked(folder / "locked.txt")), str(built.wheel))
    return environment


@pytest.fixture(scope="module")
def demo(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the installed program has run its demo."""
    folder = tmp_path_factory.mktemp("demo")
    ended = installed.run("fink-dask", "demo", "--alerts", "50", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "complete: 50 offsets, 50 alerts" in ended.stdout
    return folder


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def tracked() -> set[str]:
    """List what git would have after `git add`."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def test_the_source_distribution_holds_the_project_and_nothing_that_was_made_or_downloaded(
    built: Distributions,
) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert names - {"PKG-INFO"} == tracked() - NOT_IN_SDIST
    # None of other people's alerts are passed on: what is in the demo is made up, by `python -m tests.alerts.pack`.
    alerts = {name for name in names if name.endswith((".avro", ".parquet", ".fits", ".gz"))}
    assert alerts == {*(f"fink_dask/demo/{kind}.avro" for kind in AlertKind), "tests/ledger/first_ledger.tar.gz"}


def test_the_wheel_holds_the_package_alone_with_its_types_licence_and_extras(built: Distributions) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in tracked() if name.startswith("fink_dask/")}
    info = f"fink_dask-{fink_dask.__version__}.dist-info"
    examples = {f"fink_dask/{name}" for name in tracked() if name.startswith("examples/")}
    assert names - package == examples | {f"{info}/{name}" for name in MADE}
    assert (package | examples) - names == set()
    assert "fink_dask/py.typed" in names
    described = metadata(built.wheel)
    assert described["Version"] == fink_dask.__version__
    assert described["License-Expression"] == "Apache-2.0"
    assert set(described.get_all("Provides-Extra", [])) == set(project()["optional-dependencies"])


MADE = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_every_extra_that_a_message_or_a_page_names_is_there() -> None:
    pages = [path for path in tracked() if path.endswith((".py", ".md", ".toml")) and not path.startswith("tests/")]
    named = {
        extra.strip()
        for path in pages
        for extras in re.findall(r"fink-dask\[([\w, -]+)\]", (ROOT / path).read_text())
        for extra in extras.split(",")
    }
    assert named
    assert named <= set(project()["optional-dependencies"])


def test_an_installed_fink_dask_says_its_version_and_its_help_and_reads_what_its_demo_wrote(
    installed: Environment, demo: Path
) -> None:
    version = installed.run("fink-dask", "--version", cwd=demo)
    assert version.stdout.strip() == f"fink-dask, version {fink_dask.__version__}", version.stderr
    helped = installed.run("fink-dask", "--help", cwd=demo)
    assert helped.returncode == 0, helped.stderr
    assert "transfer" in helped.stdout
    code = "import fink_dask; print(fink_dask.__file__, fink_dask.open_dataset('fink-dask-demo').count_rows())"
    where, rows = installed.run("python", "-c", code, cwd=demo).stdout.split()
    assert Path(where).is_relative_to(installed.folder)
    assert rows == "50"
    assert installed.run("python", "-m", "pip", "check", cwd=demo).returncode == 0


def test_an_installed_fink_dask_writes_each_of_its_examples_and_overwrites_nothing(
    installed: Environment, tmp_path: Path
) -> None:
    listed = installed.run("fink-dask", "example", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    for name in names:
        assert installed.run("fink-dask", "example", name, cwd=tmp_path).returncode == 0
    there = {path.name: path.read_bytes() for path in (ROOT / "examples").iterdir() if path.name != "README.md"}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there
    (tmp_path / "light_curve.ipynb").write_text("mine")
    refused = installed.run("fink-dask", "example", "light-curve", cwd=tmp_path)
    assert refused.returncode == 1
    assert "-o" in refused.stderr
    assert (tmp_path / "light_curve.ipynb").read_text() == "mine"
    unknown = installed.run("fink-dask", "example", "light-curves", cwd=tmp_path)
    assert (unknown.returncode, "light-curve" in unknown.stderr) == (2, True)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            "hpc",
            ("transfer", "--topic", "t", "--outdir", "out", "--cluster", "slurm", "--cores", "1", "--memory", "1GB"),
        ),
        ("s3", ("status", "s3://my-bucket/alerts")),
        ("hats", ("export-hats", "fink-dask-demo", "catalog")),
    ],
)
def test_what_an_extra_is_needed_for_says_its_name_in_one_line(
    installed: Environment, demo: Path, extra: str, words: tuple[str, ...]
) -> None:
    more = {"FINK_DASK_BOOTSTRAP_SERVERS": "127.0.0.1:9", "HOME": str(demo)}
    ended = installed.run("fink-dask", *words, cwd=demo, more=more)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.strip().endswith(f"pip install 'fink-dask[{extra}]'")
    assert len(ended.stderr.strip().splitlines()) == 1


def test_help_and_star_imports_do_without_pandas(installed: Environment, demo: Path) -> None:
    words = "from fink_dask import *; import fink_dask; help(fink_dask); print(issubclass(FinkDaskError, Exception))"
    ended = installed.run("python", "-c", words, cwd=demo)
    assert ended.returncode == 0, ended.stderr
    assert "read_topic" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "True"


def test_read_topic_without_pandas_says_what_to_install(installed: Environment, demo: Path) -> None:
    ended = installed.run("python", "-c", "import fink_dask; fink_dask.read_topic('t')", cwd=demo)
    assert ended.stderr.strip().splitlines()[-1].endswith("pip install 'fink-dask[dataframe]'")
