"""A dataset becomes a HATS catalog: whole or not at all, and LSDB finds every object and every alert in it."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pytest

import fink_dask
from fink_dask.catalog import buckets, hats
from fink_dask.catalog.hats import Caller, export_hats
from fink_dask.errors import LedgerError, StorageError
from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind, encoder, made_up_alerts
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, make_topic, note
from tests.harness.producer import produce
from tests.harness.topics import delete_topic

pytestmark = [pytest.mark.readers, pytest.mark.usefixtures("shared_dask")]

COUNT, TWICE, HOMELESS, LOST = 500, 20, 7, 5


@dataclass(frozen=True)
class Names:
    """What a survey calls things."""

    record: str | None
    object_id: str
    source_id: str
    time: str


KINDS = {
    AlertKind.ZTF_LIGHT: Names(None, "objectId", "candid", "jd"),
    AlertKind.LSST_FULL: Names("diaSource", "diaObjectId", "diaSourceId", "midpointMjdTai"),
}


@dataclass(frozen=True)
class Sky:
    """A dataset, and its objects as the producer knows them."""

    ledger: Ledger
    names: Names
    light_curves: dict[Any, list[dict[str, Any]]]
    homeless: int


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.value)
def sky(request: pytest.FixtureRequest, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sky]:
    """Transfer a topic; some alerts come twice, some are of no object, some have no position."""
    kind: AlertKind = request.param
    names, count = KINDS[kind], COUNT if kind is AlertKind.ZTF_LIGHT else COUNT // 5
    topic = f"ftransfer_{kind.value[:4].strip('-')}_2026-11-01_{time.time_ns() % 10**12}"
    oracle = Oracle(make_topic(kafka.bootstrap_servers, topic, kind, 3), {})
    alerts = list(made_up_alerts(kind, count))
    measured = [alert if names.record is None else alert[names.record] for alert in alerts]
    for one in measured[:HOMELESS]:
        one[names.object_id] = None if names.record is None else 0
    of_objects = [one for one in measured if one[names.object_id]]
    for one in of_objects[:LOST]:
        one["ra"] = None
    encode = encoder(oracle.schema)
    values = [encode(alert) for alert in alerts]
    twice = [value for value, one in zip(values, measured, strict=True) if one[names.object_id]][-TWICE:]
    values += twice
    note(oracle, produce(kafka.bootstrap_servers, topic, values), values)
    outdir = tmp_path_factory.mktemp("sky") / "alerts"
    result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert result.returncode == 0, result.stderr
    curves: dict[Any, list[dict[str, Any]]] = {}
    for one in sorted(of_objects[LOST:], key=lambda one: one[names.time]):
        curves.setdefault(one[names.object_id], []).append(one)
    yield Sky(Ledger(outdir), names, curves, len(measured) - len(of_objects))
    for each in (topic, f"{topic}_schema"):
        delete_topic(kafka.bootstrap_servers, each, missing_ok=True)


@pytest.fixture(scope="module")
def exported(sky: Sky, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    before, catalog = _content(sky.ledger), tmp_path_factory.mktemp("hats") / "catalog"
    result = run_cli("export-hats", str(sky.ledger.outdir), str(catalog), "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert _content(sky.ledger) == before
    assert list(catalog.parent.iterdir()) == [catalog]
    return catalog, json.loads(result.stdout)


def _content(ledger: Ledger) -> dict[Path, str]:
    paths = [path for root in (ledger.outdir, ledger.path) for path in root.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _distance_arcsec(ra: float, dec: float, points: np.ndarray) -> np.ndarray:
    """Angles between a place and others, by the haversine formula."""
    ra, dec, others = np.radians(ra), np.radians(dec), np.radians(points)
    half = (
        np.sin((others[:, 1] - dec) / 2) ** 2
        + np.cos(dec) * np.cos(others[:, 1]) * np.sin((others[:, 0] - ra) / 2) ** 2
    )
    return np.degrees(2 * np.arcsin(np.sqrt(half))) * 3600


def test_an_export_says_what_is_in_the_catalog_and_what_is_not(sky: Sky, exported: tuple[Path, dict[str, Any]]) -> None:
    catalog, said = exported
    expected = {
        "topic": said["topic"],
        "state": "complete",
        "missing_offsets": 0,
        "objects": len(sky.light_curves),
        "alerts": sum(map(len, sky.light_curves.values())),
        "duplicates": TWICE,
        "without_object": sky.homeless,
        "without_position": LOST,
        "catalog": str(catalog),
    }
    assert expected.items() <= said.items()


def test_an_lsdb_session_finds_every_object_and_every_alert_of_its_light_curve(
    sky: Sky, exported: tuple[Path, dict[str, Any]]
) -> None:
    import lsdb

    names = sky.names
    with dask.config.set(scheduler="threads"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        catalog = lsdb.open_catalog(exported[0])
        assert catalog.margin is not None
        everything = catalog.compute()
        found = {
            row[names.object_id]: (row["ra"], row["dec"], row["alerts"], row["lightcurve"])
            for _, row in everything.iterrows()
        }
        assert found.keys() == sky.light_curves.keys()
        for name, curve in sky.light_curves.items():
            ra, dec, alerts, rows = found[name]
            assert (ra, dec, alerts) == (curve[-1]["ra"], curve[-1]["dec"], len(curve))
            assert rows[names.source_id].tolist() == [one[names.source_id] for one in curve]
            assert rows[names.time].tolist() == [one[names.time] for one in curve]
            assert rows["alert_ra"].tolist() == [one["ra"] for one in curve]

        # A cone around an object, as wide as to hold some others.
        places = np.array([(ra, dec) for ra, dec, *_ in found.values()])
        distances = _distance_arcsec(*places[0], places)
        radius = (np.sort(distances)[3] + np.sort(distances)[4]) / 2
        expected = {name for name, distance in zip(found, distances, strict=True) if distance <= radius}
        cone = catalog.cone_search(ra=places[0][0], dec=places[0][1], radius_arcsec=radius)
        inside = cone.compute()
        assert set(inside[names.object_id]) == expected
        assert len(expected) == 4

        # The light curves of the cone: unfolded, and joined from a catalog of the alerts themselves.
        unfolded = inside.explode("lightcurve")
        of_cone = {name: [one[names.source_id] for one in sky.light_curves[name]] for name in expected}
        assert {name: rows[names.source_id].tolist() for name, rows in unfolded.groupby(names.object_id)} == of_cone
        alerts = lsdb.from_dataframe(
            everything.explode("lightcurve")[[names.source_id, "alert_ra", "alert_dec", names.object_id]].reset_index(
                drop=True
            ),
            ra_column="alert_ra",
            dec_column="alert_dec",
            margin_threshold=10.0,
        )
        joined = cone.join_nested(
            alerts, left_on=names.object_id, right_on=names.object_id, nested_column_name="again"
        ).compute()
        assert {row[names.object_id]: sorted(row["again"][names.source_id]) for _, row in joined.iterrows()} == {
            name: sorted(ids) for name, ids in of_cone.items()
        }
    assert min(source_id for ids in of_cone.values() for source_id in ids) > 2**53


def test_several_processes_make_the_same_catalog_and_columns_can_be_chosen(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lsdb

    monkeypatch.setattr(buckets, "BUCKET_ROWS", 40)
    stages: list[str] = []
    catalog = tmp_path / "a catalog"
    caller = Caller(begin=lambda stage, _: stages.append(stage))
    said = export_hats(sky.ledger, catalog, [sky.names.source_id], 2, caller)
    assert stages == ["reading alerts", "gathering light curves", "writing the catalog"]
    assert said.objects == len(sky.light_curves)
    with dask.config.set(scheduler="threads"):
        found = lsdb.open_catalog(catalog).compute()
    assert {row[sky.names.object_id]: row["lightcurve"].to_dict("list") for _, row in found.iterrows()} == {
        name: {sky.names.source_id: [one[sky.names.source_id] for one in curve]}
        for name, curve in sky.light_curves.items()
    }


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_a_task_that_fails_leaves_nothing_and_its_reason_is_said(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hats_import.catalog.map_reduce._iterate_input_file", fail)
    with pytest.raises(StorageError, match=r"hats-import failed: .*No space left on device"):
        export_hats(sky.ledger, tmp_path / "catalog", None, 2, Caller())
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_an_error_without_text_is_said_in_a_line_and_leaves_nothing(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise pa.ArrowInvalid("")

    monkeypatch.setattr(hats, "deal", fail)
    with pytest.raises(LedgerError, match=r"alerts can't be read: ArrowInvalid$"):
        export_hats(sky.ledger, tmp_path / "catalog", None, 1, Caller())
    assert list(tmp_path.iterdir()) == []


def _until(process: subprocess.Popen[str], parent: Path, pattern: str) -> None:
    """Wait until an export has got somewhere."""
    deadline = time.monotonic() + 120
    while not any(parent.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
@pytest.mark.parametrize("at", [".catalog.*.part", ".catalog.*.part/catalog/catalog"])
def test_an_export_that_is_stopped_leaves_nothing(sky: Sky, tmp_path: Path, at: str) -> None:
    command = [*PROGRAM, "export-hats", str(sky.ledger.outdir), str(tmp_path / "catalog")]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(process, tmp_path, at)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    (line,) = err.splitlines()
    assert str(tmp_path / "catalog") in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_an_export_that_is_killed_leaves_no_catalog_and_the_next_one_says_what_is_left(
    sky: Sky, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog"
    command = [*PROGRAM, "export-hats", str(sky.ledger.outdir), str(catalog)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(process, tmp_path, ".catalog.*.part/catalog/catalog")
    process.kill()
    process.communicate(timeout=300)
    (left,) = tmp_path.iterdir()
    assert left != catalog
    # The dataset, too, lacks a range now: what is there is exported, with a word.
    copy = Ledger(tmp_path / "alerts")
    subprocess.run(["cp", "-r", sky.ledger.outdir, sky.ledger.path, tmp_path], check=True)
    marker = next(copy.markers(copy.plans()))
    copy.marker_path(marker.range).unlink()
    result = run_cli("export-hats", str(copy.outdir), str(catalog))
    assert result.returncode == 3
    assert f"{left} is from another export" in result.stderr
    assert f"{len(marker.range):,} planned offsets missing" in result.stderr
    rows = fink_dask.open_dataset(copy.outdir).count_rows()
    assert rows < fink_dask.open_dataset(sky.ledger.outdir).count_rows()
    assert (catalog / "collection.properties").is_file()


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
@pytest.mark.parametrize(
    ("catalog", "more", "status", "words"),
    [
        ("alerts", (), 2, "already exists"),
        ("alerts/catalog", (), 2, "is inside"),
        ("alerts.fink/catalog", (), 2, "is inside"),
        ("no/catalog", (), 2, "is not a directory"),
        ("catalog", ("--columns", "nothing"), 2, "there is no such column"),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(
    sky: Sky, catalog: str, more: tuple[str, ...], status: int, words: str
) -> None:
    before, parent = _content(sky.ledger), sky.ledger.outdir.parent
    result = run_cli("export-hats", str(sky.ledger.outdir), str(parent / catalog), *more)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (status, "", 1)
    assert words in result.stderr
    assert _content(sky.ledger) == before
    assert sorted(path.name for path in parent.iterdir()) == ["alerts", "alerts.fink"]


@pytest.mark.sample
def test_without_hats_import_a_line_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['hats_import'] = None; from fink_dask.catalog.hats import *;"
        f"export_hats(Ledger(Path({str(tmp_path)!r})), Path({str(tmp_path / 'c')!r}), None, 1, Caller())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ended.stderr.endswith("pip install 'fink-dask[hats]'\n")
