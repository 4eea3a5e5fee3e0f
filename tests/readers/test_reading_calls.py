"""What Fink's documentation and tutorials read from its client's files, they read from ours: the same results."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.environments import client_environment, python_of
from fink_dask.settings import OUTFORMATS
from tests.alerts.made_up import AlertKind
from tests.harness.cli import environment, run_cli, transfer_arguments
from tests.harness.oracle import fill_topic
from tests.harness.topics import name_topic, remove_topics

pytestmark = pytest.mark.readers

CALLS = Path(__file__).with_name("reading_calls.py")
ALERTS = 40
#: What has a history and cutouts.
FULL = {AlertKind.ZTF_FULL, AlertKind.LSST_FULL}
#: Calls that need the client's own functions, and those that need readers that it does not bring.
OF_THE_CLIENT = ("light_curves", "cutouts", "alert_reader")
OF_ANYBODY = ("pandas_directory", "pandas_with_schema", "pyarrow_with_schema", "each_file", "polars_parquet")
OF_OTHERS = ("nested",)


@dataclass(frozen=True)
class Transferred:
    """A topic that both programs have transferred, into Parquet and Avro, each in a directory of its own."""

    kind: AlertKind
    topic: str
    ours: Path
    theirs: Path

    def where(self, root: Path) -> dict[str, str]:
        is_ztf = "ztf" in self.kind.value
        return {
            "parquet": str(root / "parquet"),
            "avro": str(root / "avro"),
            "schema": str(root / f"arrow_schema_{self.topic}.metadata"),
            "id": "candid" if is_ztf else "diaSourceId",
            "history": "prv_candidates" if is_ztf else "prvDiaSources",
        }


@pytest.fixture(scope="module")
def client() -> Path:
    """The environment of Fink's own client, which is installed on first use."""
    return client_environment()


@pytest.fixture(scope="module", params=list(AlertKind), ids=str)
def transferred(
    request: pytest.FixtureRequest, kafka: Any, client: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Transferred]:
    kind = AlertKind(request.param)
    survey = "ztf" if "ztf" in kind.value else "lsst"
    topic = name_topic(survey)
    root = tmp_path_factory.mktemp(kind.value)
    made = Transferred(kind, topic, root / "ours", root / "theirs")
    fill_topic(kafka.bootstrap_servers, topic, kind, ALERTS)  # into ten partitions, which the client takes for granted
    made.ours.mkdir()
    with ThreadPoolExecutor() as threads:  # the client waits most of the time
        theirs = [threads.submit(_transfer_with_client, client, kafka, made, survey, each) for each in OUTFORMATS]
        for outformat in OUTFORMATS:
            more = ("-outformat", outformat, "--dump_schemas")
            result = run_cli(*transfer_arguments(kafka, topic, made.ours / outformat, *more), cwd=made.ours)
            assert result.returncode == 0, result.stderr
        for each in theirs:
            each.result()
    yield made
    remove_topics(kafka.bootstrap_servers, topic)


def _transfer_with_client(client: Path, kafka: Any, made: Transferred, survey: str, outformat: str) -> None:
    home = made.theirs / f"home-{outformat}"
    (home / ".finkclient").mkdir(parents=True)
    servers = f"servers: {kafka.bootstrap_servers}\nmaxtimeout: 3\n"
    (home / ".finkclient" / f"{survey}_credentials.yml").write_text(
        f"survey: {survey}\nusername: test\ngroupid: {uuid.uuid4()}\n{servers}"
    )
    words = ["-survey", survey, "-topic", made.topic, "-outdir", outformat, "-outformat", outformat, "-nconsumers", "2"]
    subprocess.run(
        [str(client / "bin" / "finkctl"), "transfer", *words, "--dump_schemas"],
        cwd=made.theirs,
        env=environment({"HOME": str(home), "MPLBACKEND": "Agg"}),
        capture_output=True,
        check=True,
        timeout=480,
    )


def found(python: str, calls: tuple[str, ...], where: dict[str, str]) -> dict[str, Any]:
    result = subprocess.run(
        [python, str(CALLS)],
        input=json.dumps({"calls": calls, "where": where}),
        env=environment({"MPLBACKEND": "Agg"}),
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    digests: dict[str, Any] = json.loads(result.stdout)
    return digests


def assert_same(python: str, calls: tuple[str, ...], made: Transferred) -> None:
    ours, theirs = (found(python, calls, made.where(root)) for root in (made.ours, made.theirs))
    for call in calls:
        assert theirs[call]["rows"] > 0
        assert ours[call] == theirs[call], call


def test_the_clients_own_functions_read_our_files_as_its_own(client: Path, transferred: Transferred) -> None:
    calls = OF_THE_CLIENT if transferred.kind in FULL else ("alert_reader",)
    assert_same(python_of(client), (*calls, *OF_ANYBODY[:-1]), transferred)


def test_other_readers_read_our_files_as_the_clients(transferred: Transferred) -> None:
    calls = OF_OTHERS if transferred.kind in FULL else ()
    assert_same(sys.executable, (*OF_ANYBODY, *calls), transferred)


@pytest.mark.parametrize("transferred", [AlertKind.ZTF_LIGHT], ids=str, indirect=True)
def test_avro_files_are_flat_unless_a_partition_column_is_asked_for_with_them(
    kafka: Any, client: Path, transferred: Transferred, tmp_path: Path
) -> None:
    """The client's reader lists one directory; where there are more, it takes the files."""
    columns = ("-partitionby", "time", "-outformat", "avro")
    result = run_cli(*transfer_arguments(kafka, transferred.topic, tmp_path / "days", *columns))
    assert result.returncode == 0, result.stderr
    read = "from fink_client.avro_utils import AlertReader; import glob, sys; print(len(AlertReader({}).to_list()))"
    for reader, directory, alerts in (
        ("sys.argv[1]", transferred.ours / "avro", ALERTS),
        ("sys.argv[1]", tmp_path / "days", 0),
        ("glob.glob(sys.argv[1] + '/**/*.avro', recursive=True)", tmp_path / "days", ALERTS),
    ):
        script = [python_of(client), "-c", read.format(reader), str(directory)]
        counted = subprocess.run(script, env=environment({}), capture_output=True, text=True, check=True, timeout=300)
        assert int(counted.stdout) == alerts
