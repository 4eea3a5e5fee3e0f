"""What other programs read from an exported table is what was sent, to the last digit."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from fink_dask.export.formats import FORMATS, Column
from fink_dask.export.table import export_table
from tests.alerts.made_up import AlertKind
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.kafka_install import apt_install, is_debian_root
from tests.harness.nights import add_night
from tests.harness.oracle import fill_topic
from tests.harness.topics import create_topic, own_topic
from tests.harness.versions import Livestream, record

pytestmark = pytest.mark.usefixtures("shared_dask")

SUFFIXES = (".fits", ".vot", ".csv", ".parquet")
COLUMNS = {
    AlertKind.ZTF_FULL: ("candid", "objectId", "candidate.magpsf", "candidate.fid", "is_transient", "finkclass"),
    AlertKind.LSST_FULL: (
        "diaSourceId",
        "diaSource.diaObjectId",
        "diaSource.psfFlux",
        "xm.simbad_otype",
        "pred.is_sso",
    ),
}


@dataclass(frozen=True)
class Transferred:
    """A dataset, and its alerts as they were sent, by identifier."""

    outdir: Path
    kind: AlertKind
    alerts: dict[int, dict[str, Any]]


@pytest.fixture(scope="module", params=list(COLUMNS), ids=lambda kind: kind.value)
def sent(request: pytest.FixtureRequest, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transferred]:
    kind: AlertKind = request.param
    outdir = tmp_path_factory.mktemp("export") / "alerts"
    with own_topic(kafka.bootstrap_servers, kind) as topic:
        oracle = fill_topic(kafka.bootstrap_servers, topic, kind, 20, partitions=1)
        done = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
        assert done.returncode == 0, done.stderr
        alerts = [oracle.alert(place) for place in oracle.values]
        yield Transferred(outdir, kind, {alert[COLUMNS[kind][0]]: alert for alert in alerts})


def value_of(alert: dict[str, Any], path: str) -> Any:
    found: Any = alert
    for name in path.split("."):
        found = found[name] if found is not None else None
    return found


def read(path: Path) -> list[dict[str, Any]]:
    """Read a table as its users do; what is masked, or nothing, is null."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]
    table = Table.read(path, format="fits" if path.suffix == ".fits" else "votable")
    return [{name: None if np.ma.is_masked(row[name]) else row[name] for name in table.colnames} for row in table]


def is_same(found: Any, expected: Any) -> bool:
    if isinstance(found, bytes):
        found = found.decode()
    if expected is None:
        return found is None or found == "" or (isinstance(found, float | np.floating) and math.isnan(found))
    if isinstance(expected, bool):
        return str(found).lower() == str(expected).lower()
    if isinstance(expected, float):
        return found is not None and np.float32(found) == np.float32(expected)
    return str(found if found is not None else "").strip() == str(expected).strip()


def assert_values(rows: list[dict[str, Any]], sent: Transferred, suffix: str) -> None:
    """Fail unless all columns of `COLUMNS` have what was sent."""
    names = COLUMNS[sent.kind]
    assert {int(row[names[0]]) for row in rows} == sent.alerts.keys(), "an identifier has lost its last digits"
    for row in rows:
        alert = sent.alerts[int(row[names[0]])]
        expected = {name: value_of(alert, name) for name in names}
        if suffix == ".fits":  # it has no other letters than those of ASCII
            expected |= {name: ascii(text)[1:-1] for name, text in expected.items() if isinstance(text, str)}
        assert [name for name in names if not is_same(row[name], expected[name])] == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_value_is_read_back(sent: Transferred, tmp_path: Path, suffix: str) -> None:
    file, names = tmp_path / f"table{suffix}", COLUMNS[sent.kind]
    done = run_cli("export", str(sent.outdir), str(file), "--columns", ",".join(names), "--json")
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    expected = {"file": str(file), "rows": 20, "columns": list(names), "left_out": [], "state": "complete"}
    assert expected.items() <= json.loads(done.stdout).items()
    assert_values(read(file), sent, suffix)
    assert list(tmp_path.iterdir()) == [file]


def test_all_single_values_are_columns_and_the_rest_is_named(sent: Transferred, tmp_path: Path) -> None:
    done = run_cli("export", str(sent.outdir), str(tmp_path / "all.fits"))
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    assert "cutout" in done.stdout
    with fits.open(tmp_path / "all.fits", logical_as_bytes=True) as file:
        assert len(file[1].data) == 20
        assert {"kafka_offset", "year", *COLUMNS[sent.kind]} <= set(file[1].columns.names)
        record = "candidate" if sent.kind is AlertKind.ZTF_FULL else "diaSource"
        assert file[1].columns[f"{record}.ra"].unit == "deg"


@pytest.mark.readers
@pytest.mark.parametrize("suffix", [".fits", ".vot"])
def test_stilts_reads_every_value_back(sent: Transferred, tmp_path: Path, suffix: str) -> None:
    if shutil.which("stilts") is None:
        assert is_debian_root(), "this needs STILTS: install it (Debian: apt-get install stilts)"
        apt_install(["stilts"])
    names = COLUMNS[sent.kind]
    export_table(sent.outdir, tmp_path / f"a{suffix}", names)
    asked = ["stilts", "tpipe", f"in={tmp_path}/a{suffix}", "omode=out", f"out={tmp_path}/a.csv", "ofmt=csv"]
    subprocess.run(asked, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert_values(read(tmp_path / "a.csv"), sent, suffix)


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".parquet"])
def test_what_the_schema_says_of_a_column_goes_with_it(kafka: Any, topic: str, tmp_path: Path, suffix: str) -> None:
    said = "Magnitude from PSF-fit photometry <é> [mag]"
    inside = record("candidate", jd="double", scatter="float")
    inside["fields"][0]["doc"] = "Observation Julian date at start of exposure [days]"
    inside["fields"][1]["doc"] = said
    schema = record("alert", objectId="string", candid="long", candidate=inside)
    outdir = tmp_path / "alerts"
    if topic not in _sent:
        _sent.add(topic)
        create_topic(kafka.bootstrap_servers, topic, 1)
        Livestream(kafka.bootstrap_servers, topic).add([schema] * 3)
    done = run_cli(*transfer_arguments(kafka, topic, outdir))
    assert done.returncode == 0, done.stderr
    file = tmp_path / f"a{suffix}"
    export_table(outdir, file)
    if suffix == ".parquet":
        about = pq.read_schema(file).field("candidate.scatter").metadata
        assert about == {b"unit": b"mag", b"description": said.encode()}
        return
    table = Table.read(file, format="fits" if suffix == ".fits" else "votable")
    column = table["candidate.scatter"]
    assert str(column.unit) == "mag"
    if suffix == ".fits":  # astropy keeps it among the comments, TOPCAT shows it with the column
        assert fits.getheader(file, 1)[f"TCOMM{table.colnames.index('candidate.scatter') + 1}"] == said.replace(
            "é", "?"
        )
    else:
        assert column.description == said


_sent: set[str] = set()


def test_a_condition_takes_what_it_is_true_of(sent: Transferred, tmp_path: Path) -> None:
    number = COLUMNS[sent.kind][2]
    middle = sorted(value_of(alert, number) for alert in sent.alerts.values())[10]
    done = run_cli("export", str(sent.outdir), str(tmp_path / "a.csv"), "--where", f"{number} < {middle}")
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    assert len(read(tmp_path / "a.csv")) == 10


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.txt", (), ".fits"),
        ("nowhere/a.fits", (), "nowhere"),
        ("there.csv", (), "there.csv"),
        ("a.csv", ("--columns", "nothing"), "--columns nothing"),
        ("a.csv", ("--columns", "kafka_offset,{cutout}"), "cutoutScience"),
        ("a.csv", ("--where", "nothing < 1"), "--where"),
        ("a.csv", ("--where", "kafka_offset <"), "--where"),
    ],
)
def test_each_slip_is_a_line_and_leaves_nothing(
    sent: Transferred, tmp_path: Path, name: str, options: tuple[str, ...], words: str
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    cutout = "cutoutScience.stampData" if sent.kind is AlertKind.ZTF_FULL else "cutoutScience"
    done = run_cli("export", str(sent.outdir), str(tmp_path / name), *(each.format(cutout=cutout) for each in options))
    assert done.returncode == 2
    (line,) = remarks(done.stderr)
    assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_gets_what_a_file_would_and_is_no_file_to_be_protected(
    sent: Transferred, tmp_path: Path, suffix: str
) -> None:
    pipe, file = tmp_path / f"pipe{suffix}", tmp_path / f"a{suffix}"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        piped = pool.submit(pipe.read_bytes)
        export_table(sent.outdir, pipe, COLUMNS[sent.kind])
        file.write_bytes(piped.result())
    assert_values(read(file), sent, suffix)
    assert pipe.is_fifo()


def test_what_fails_in_the_middle_leaves_nothing(sent: Transferred, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_table(sent.outdir, tmp_path / "a.csv", advance=stop)
    assert not list(tmp_path.iterdir()), "the next export would be refused, or a half table taken for a whole one"


def test_columns_with_dots_in_their_own_names_are_columns_as_well(tmp_path: Path) -> None:
    schema = record("alert", objectId="string", **{"candidate.jd": "double", "x.y": record("inside", z="int")})
    alerts = [{"objectId": "ZTF18aa", "candidate.jd": number + 0.5, "x.y": {"z": number}} for number in range(3)]
    add_night(tmp_path / "alerts", schema, alerts)
    done = export_table(tmp_path / "alerts", tmp_path / "a.csv", where="candidate.jd > 1")
    assert [row["candidate.jd"] for row in read(tmp_path / "a.csv")] == ["1.5", "2.5"]
    assert done.left_out == ("x.y.z",), "no path leads there"
    said = run_cli("lightcurve", str(tmp_path / "alerts"), "ZTF18aa")
    assert (said.returncode, "curve" in said.stderr) == (2, True), "a column like a survey's is none"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truth_value_that_is_null_is_never_written_as_false(tmp_path: Path, suffix: str) -> None:
    batch = pa.record_batch([pa.array([True, False, None]), pa.array([1, 2, 3])], ["b", "n"])
    file, columns = tmp_path / f"a{suffix}", [Column("b", pa.bool_(), ""), Column("n", pa.int64(), "")]
    FORMATS[suffix](file, columns, lambda: iter([batch]))
    if suffix == ".fits":  # astropy's tables would make False of it
        with fits.open(file, logical_as_bytes=True) as found:
            assert list(found[1].data["b"]) == [b"T", b"F", b""]
    else:
        found = [row["b"] for row in read(file)]
        assert all(map(is_same, found, [True, False, None]))
        assert found[2] is None


HOSTILE = ["", "é ☃ 𝄞", "a\x00b\x1b[31m", "<TD>&amp;]]>", 'say "x",\n y', "'; DROP", None, "\ud7ff\ufffe"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_text_harms_no_reader(tmp_path: Path, suffix: str) -> None:
    columns = [Column("t & <x>", pa.string(), ""), Column("n", pa.int64(), "")]
    batch = pa.record_batch([pa.array(HOSTILE), pa.array(range(len(HOSTILE)))], ["t & <x>", "n"])
    assert FORMATS[suffix](tmp_path / f"a{suffix}", columns, lambda: iter([batch])) == len(HOSTILE)
    rows = read(tmp_path / f"a{suffix}")
    assert [int(row["n"]) for row in rows] == list(range(len(HOSTILE)))
    texts = [str(next(iter(row.values()))) for row in rows]
    assert texts[3] == HOSTILE[3]
    assert texts[4] == HOSTILE[4] or suffix == ".fits"
