"""What is built of this project, and environments that hold nothing but what they are given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements-dev.lock"
#: The Pythons that pyproject.toml promises.
PYTHONS = ("3.11", "3.12", "3.13")
_TIMEOUT_S = 540


@dataclass(frozen=True)
class Distributions:
    """What a release uploads."""

    sdist: Path
    wheel: Path

    def unpack(self, folder: Path) -> Path:
        """Unpack the source distribution; returns its only folder."""
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = folder.iterdir()
        return unpacked


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and its programs as a user's shell would start them."""

    folder: Path

    def run(
        self,
        program: str,
        *arguments: str,
        cwd: Path,
        more: dict[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to the end, in an environment that knows no other Python and no settings."""
        kept = {name: value for name, value in os.environ.items() if not _leads_elsewhere(name)}
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=cwd,
            env={**kept, "PATH": path, "COLUMNS": "100", **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def install(self, *words: str) -> None:
        """Let pip install something, from the package registries that it is set up for."""
        flags = ["--quiet", "--no-input", "--disable-pip-version-check"]
        done = self.run("python", "-m", "pip", "install", *flags, *words, cwd=self.folder)
        assert done.returncode == 0, done.stderr[-3000:]


def _leads_elsewhere(name: str) -> bool:
    return name.startswith(("FINK_DASK_", "PYTEST")) or name in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}


def build_distributions(folder: Path) -> Distributions:
    """Build the source distribution, and the wheel from it, as ``make dist`` does."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Distributions(sdist, wheel)


def make_environment(folder: Path, python: str = sys.executable) -> Environment:
    """Make a virtual environment with pip alone."""
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True, timeout=_TIMEOUT_S)
    return Environment(folder)


def find_python(version: str) -> str | None:
    """Find a Python of a version on this machine, in the PATH or among pyenv's, that can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python{version}")))]
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        # A shim of pyenv is there for versions that are not chosen, too, and then only complains.
        said = subprocess.run([candidate, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
        if said.stdout.strip() == version:
            return candidate
    return None


def project() -> dict[str, Any]:
    """Read what pyproject.toml says of the package."""
    described: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return described


def write_locked(file: Path) -> Path:
    """Write the lock's versions as constraints; its hashes would be asked of the wheel under test, too."""
    file.write_text("\n".join(re.findall(r"^[\w.-]+==[^\s;]+", LOCK.read_text(), re.MULTILINE)) + "\n")
    return file


def write_oldest(file: Path, requirements: Sequence[str]) -> Path:
    """Write constraints that take every requirement at the oldest version that it allows."""
    bounds = {}
    for text in requirements:
        requirement = Requirement(text)
        (oldest,) = (each.version for each in requirement.specifier if each.operator == ">=")
        bounds[requirement.name] = f"{requirement.name}=={oldest}"
    file.write_text("\n".join(bounds.values()) + "\n")
    return file
