"""Java, Maven and the jars of Apache Kafka: installed once, shared by every test run of this checkout."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

KAFKA_VERSION = "4.3.0"
#: Kafka 4 brokers need at least this Java: https://kafka.apache.org/43/documentation.html#java
JAVA_VERSION = 17
PROJECT_ROOT = Path(__file__).resolve().parents[2]

INSTALL_TIMEOUT_S = 900
MAIN_JAR = f"kafka_2.13-{KAFKA_VERSION}.jar"
# Kafka logs through slf4j and its published dependencies bind it to nothing: without slf4j-simple, a broker that can't
# start says nothing at all.
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fink-dask</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


class HarnessError(RuntimeError):
    """Say what the harness needs and can't have, or what its broker died of."""


def ensure_kafka_jars() -> Path:
    """Return the folder of Kafka's jars, downloaded first where it is not there.

    The folder is ``kafka-4.3.0/lib`` below ``.cache`` in the project, or below ``$FINK_DASK_TEST_CACHE``. It appears
    by one rename, so it is complete or absent. A Java that can run the jars is made sure of as well.

    Returns: A folder that holds the broker's class path.
    Raises HarnessError: java or Maven is missing and can't be installed, or the download failed; one line.
    """
    room = kafka_room()
    lib = room / "lib"
    room.mkdir(parents=True, exist_ok=True)
    with locked(room / "lock"):  # a second process waits, and then finds the work done
        done = (lib / MAIN_JAR).is_file()
        ensure_tools(maven=not done)
        if not done:
            _download(lib)
    return lib


def kafka_room() -> Path:
    """Name the folder of Kafka's jars and of what makes brokers start quickly."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}"


def cache_folder() -> Path:
    """Name the folder of what test runs of this checkout keep for each other."""
    return Path(os.environ.get("FINK_DASK_TEST_CACHE") or PROJECT_ROOT / ".cache").resolve()


def find_java() -> str | None:
    """Return the command of a Java that is new enough, from ``JAVA_HOME`` or the path, or None."""
    candidates = ["java"]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, str(Path(home) / "bin" / "java"))
    return next((found for name in candidates if (found := shutil.which(name)) and _is_new_enough(found)), None)


@cache
def _is_new_enough(java: str) -> bool:
    """Tell whether a java command runs and is new enough; macOS has one that only asks for an installation."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    version = re.search(r'version "(\d+)', said.stderr)
    return said.returncode == 0 and version is not None and int(version[1]) >= JAVA_VERSION


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; the system lets it go when the process dies."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _missing_tools(*, maven: bool) -> list[str]:
    missing = [] if find_java() else ["java"]
    if maven and not shutil.which("mvn"):
        missing.append("mvn")
    return missing


def ensure_tools(*, maven: bool) -> None:
    missing = _missing_tools(maven=maven)
    if not missing:
        return
    why = ""
    if is_debian_root():
        try:
            _install_tools(missing)
        except HarnessError as error:
            why = f" ({error})"
        missing = _missing_tools(maven=maven)
    if missing:
        raise HarnessError(
            f"the Kafka tests need {' and '.join(missing)}{why}: install a Java {JAVA_VERSION} or newer and Maven"
            " (Debian: apt-get install openjdk-17-jre-headless maven; macOS: brew install openjdk maven),"
            " or set FINK_DASK_TEST_BOOTSTRAP to a Kafka that runs"
        )


def is_debian_root() -> bool:
    """Whether packages can be installed here."""
    return bool(shutil.which("apt-get")) and Path("/etc/debian_version").exists() and os.geteuid() == 0


def apt_install(packages: Sequence[str]) -> None:
    """Install packages on Debian, as root; one process of the tests at a time."""
    with _apt():
        wait = ["-o", "DPkg::Lock::Timeout=300"]
        run_tool(["apt-get", "install", "-q", "-y", "--no-install-recommends", *wait, *packages], "apt-get install")


@contextmanager
def _apt() -> Iterator[None]:
    """Have the lists of packages up to date, and nobody else at them.

    apt-get waits for others that install, but not for others that update.
    """
    with locked(Path(tempfile.gettempdir()) / "fink-dask-tests-apt.lock"):
        run_tool(["apt-get", "update", "-q"], "apt-get update")
        yield


def _install_tools(missing: Sequence[str]) -> None:
    """Install tools on Debian; releases after 12 have no Java 17, but a newer default."""
    with _apt():
        known = subprocess.run(
            ["apt-cache", "show", "openjdk-17-jre-headless"], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    java = "openjdk-17-jre-headless" if known.returncode == 0 and known.stdout else "default-jre-headless"
    apt_install([{"java": java, "mvn": "maven"}[tool] for tool in missing])


def _download(lib: Path) -> None:
    """Let Maven copy Kafka's jars aside, then rename them into place."""
    with tempfile.TemporaryDirectory(dir=lib.parent, prefix="download-") as folder:
        aside = Path(folder)
        pom = aside / "pom.xml"
        pom.write_text(POM)
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={aside / 'lib'}", "-DincludeScope=runtime"]
        run_tool(["mvn", "-q", "-B", "-f", str(pom), *copy], f"Maven's download of Kafka {KAFKA_VERSION}")
        if not (aside / "lib" / MAIN_JAR).is_file():
            raise HarnessError(f"Maven's download of Kafka {KAFKA_VERSION} holds no {MAIN_JAR}")
        if lib.exists():  # under the lock, and without the jar: nobody's download
            shutil.rmtree(lib)
        (aside / "lib").rename(lib)


def run_tool(command: Sequence[str], what: str) -> None:
    """Run a command without a terminal, bounded in time, with its last words in the error."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{what} took more than {INSTALL_TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
        reason = next((line for line in lines if line.startswith(("[ERROR]", "E:"))), lines[-1])
        raise HarnessError(f"{what} failed with status {done.returncode}: {reason[:400]}")
