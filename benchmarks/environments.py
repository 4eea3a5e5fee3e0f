"""Environments of their own for the peers and for drawing: made once below .cache, from the package registries."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "benchmarks"

FINK_CLIENT = "12.3.0"
# Its connectors are on Maven Central, and it runs on Java 17.
SPARK = "4.2.0"
# So are Flink's; that for Kafka has versions of its own, and the newest is built for Flink 2.2.
FLINK, FLINK_KAFKA = "2.3.0", "5.0.0-2.2"
MATPLOTLIB = "3.9"
KAFKARROW, PYRUHVRO = "0.1.1", "0.4.0"
#: What an engine's connectors need besides the jars of its Python package, with the versions of its own build.
_SPARK_JARS = (
    ("org.apache.spark", "spark-sql-kafka-0-10_2.13", SPARK),
    ("org.apache.spark", "spark-token-provider-kafka-0-10_2.13", SPARK),
    ("org.apache.spark", "spark-avro_2.13", SPARK),
    ("org.apache.kafka", "kafka-clients", "3.9.2"),
    ("org.apache.commons", "commons-pool2", "2.13.1"),
)
# Flink expects its users to have Hadoop, of which Parquet needs a few classes.
_FLINK_JARS = (
    ("org.apache.flink", "flink-sql-connector-kafka", FLINK_KAFKA),
    ("org.apache.flink", "flink-sql-avro", FLINK),
    ("org.apache.flink", "flink-sql-parquet", FLINK),
    ("com.github.luben", "zstd-jni", "1.5.6-6"),
    ("org.apache.hadoop", "hadoop-client-api", "3.4.1"),
    ("org.apache.hadoop", "hadoop-client-runtime", "3.4.1"),
)
# Each jar is named and brings nothing along: a jar that the package has too must come from there alone.
_DEPENDENCY = """
    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
      <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
    </dependency>"""
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fink-dask</groupId><artifactId>connectors</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>{}
  </dependencies>
</project>
"""
_TIMEOUT_S = 1200


@dataclass(frozen=True)
class Environments:
    """Where the programs are."""

    #: fink_client, spark, flink, figures, kafkarrow: python environments; empty where nobody needs them.
    fink_client: Path
    spark: Path = Path()
    flink: Path = Path()
    figures: Path = Path()
    kafkarrow: Path = Path()
    #: spark_jars, flink_jars: the connectors of an engine.
    spark_jars: tuple[Path, ...] = ()
    flink_jars: tuple[Path, ...] = ()


def make_environments() -> Environments:
    """Make what is not there yet.

    Raises BenchmarkError: something could not be installed.
    """
    return Environments(
        client_environment(),
        spark_environment(),
        python_environment("flink", f"apache-flink=={FLINK}"),
        figures_environment(),
        python_environment("kafkarrow", f"kafkarrow=={KAFKARROW}"),
        _connectors("spark", SPARK, _SPARK_JARS),
        _connectors("flink", FLINK, _FLINK_JARS),
    )


def client_environment() -> Path:
    """Make the environment of Fink's own client."""
    return python_environment("fink-client", f"fink-client=={FINK_CLIENT}")


def figures_environment() -> Path:
    """Make the environment that draws, which needs no peer."""
    return python_environment("figures", f"matplotlib>={MATPLOTLIB}")


def spark_environment() -> Path:
    """Make the environment of Spark, which the tests of readers use as well."""
    return python_environment("spark", f"pyspark=={SPARK}")


def python_of(environment: Path) -> str:
    """Return the Python of an environment."""
    return str(environment / "bin" / "python")


def installed(environment: Path, packages: Sequence[str]) -> dict[str, str]:
    """Ask an environment which versions it has.

    Returns: versions by name.
    """
    code = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    said = _run([python_of(environment), "-I", "-c", code, *packages], "asking for versions")
    return dict(zip(packages, said.split(), strict=True))


def python_environment(name: str, *requirements: str) -> Path:
    """Make a virtual environment; its stamp says that it is complete, and with what."""
    requirement = " ".join(requirements)
    folder = CACHE / name
    stamp = folder / ".installed"
    with _alone(name):
        if not stamp.is_file() or stamp.read_text() != requirement:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)], f"the environment for {requirement}")
            pip = [python_of(folder), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            _run([*pip, *requirements], f"pip's installation of {requirement}")
            stamp.write_text(requirement)
    return folder


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one process at a time make what has this name: tests that run side by side ask for the same."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connectors(engine: str, version: str, jars: Sequence[tuple[str, str, str]]) -> tuple[Path, ...]:
    """Make the folder of an engine's connectors, and list them."""
    folder = CACHE / f"{engine}-{version}-jars"
    with _alone(f"{engine}-jars"):
        if not folder.is_dir():
            _copy_jars(folder, engine, jars)
    return tuple(sorted(folder.glob("*.jar")))


def _copy_jars(folder: Path, engine: str, jars: Sequence[tuple[str, str, str]]) -> None:
    """Let Maven copy the connectors aside, refusing a wrong checksum, then rename them into place."""
    if shutil.which("mvn") is None:
        raise BenchmarkError(f"the connectors of {engine} need Maven: install it (Debian: apt-get install maven)")
    aside = CACHE / f"{engine}-jars.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    pom = aside / "pom.xml"
    pom.write_text(_POM.format("".join(_DEPENDENCY.format(*jar) for jar in jars)))
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={aside / 'lib'}", "-DincludeScope=runtime"]
    _run(["mvn", "-q", "-B", "--strict-checksums", "-f", str(pom), *copy], f"Maven's download of {engine}'s connectors")
    (aside / "lib").rename(folder)
    shutil.rmtree(aside)


def _run(command: Sequence[str], what: str) -> str:
    """Run a command without a terminal, bounded in time, with its last words in the error."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{what} took more than {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["it said nothing"]
        reason = next((line for line in lines if "[ERROR]" in line or line.startswith("ERROR")), lines[-1])
        raise BenchmarkError(f"{what} failed with status {done.returncode}: {reason[:400]}")
    return done.stdout
