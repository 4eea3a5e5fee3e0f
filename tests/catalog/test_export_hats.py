"""A dataset becomes a HATS catalog: whole or not at all, and LSDB finds every object and every alert in it."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import fink_dask
from fink_dask.catalog import hats, version
from fink_dask.catalog.form import MOVERS
from fink_dask.catalog.gather import Objects
from fink_dask.catalog.hats import export_hats
from fink_dask.errors import LedgerError, StorageError
from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.harness.catalogs import content_of
from tests.harness.cli import PROGRAM, environment, remarks, run_cli, transfer_arguments
from tests.harness.ledgers import hashes_of
from tests.harness.nights import add_night
from tests.harness.oracle import fill_with
from tests.harness.topics import own_topic

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
def sky(request: pytest.FixtureRequest, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """Transfer a topic; some alerts come twice, some are of no object, some have no position."""
    kind: AlertKind = request.param
    names, count = KINDS[kind], COUNT if kind is AlertKind.ZTF_LIGHT else COUNT // 5
    alerts = list(made_up_alerts(kind, count))
    measured = [alert if names.record is None else alert[names.record] for alert in alerts]
    for one in measured[:HOMELESS]:
        one[names.object_id] = None if names.record is None else 0
    of_objects = [one for one in measured if one[names.object_id]]
    for one in of_objects[:LOST]:
        one["ra"] = None
    twice = [alert for alert, one in zip(alerts, measured, strict=True) if one[names.object_id]][-TWICE:]
    outdir = tmp_path_factory.mktemp("sky") / "alerts"
    with own_topic(kafka.bootstrap_servers, kind) as topic:
        fill_with(kafka.bootstrap_servers, topic, kind, [*alerts, *twice], 3)
        result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
        assert result.returncode == 0, result.stderr
    curves: dict[Any, list[dict[str, Any]]] = {}
    for one in sorted(of_objects[LOST:], key=lambda one: one[names.time]):
        curves.setdefault(one[names.object_id], []).append(one)
    return Sky(Ledger(outdir), names, curves, len(measured) - len(of_objects))


@pytest.fixture(scope="module")
def exported(sky: Sky, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    before, catalog = hashes_of(sky.ledger), tmp_path_factory.mktemp("hats") / "catalog"
    result = run_cli("export-hats", str(sky.ledger.outdir), str(catalog), "--json")
    assert (result.returncode, remarks(result.stderr)) == (0, [])
    assert hashes_of(sky.ledger) == before
    assert list(catalog.parent.iterdir()) == [catalog]
    return catalog, json.loads(result.stdout)


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
        "added": sum(map(len, sky.light_curves.values())) + sky.homeless + LOST + TWICE,
        "duplicates": TWICE,
        "movers": sky.homeless,
        "without_position": LOST,
        "catalog": str(catalog),
    }
    assert expected.items() <= said.items()
    again = run_cli("export-hats", str(sky.ledger.outdir), str(catalog), "--json")
    assert (again.returncode, remarks(again.stderr)) == (0, [])
    nothing = {"added": 0, "duplicates": 0, "without_position": 0}
    assert json.loads(again.stdout) == {**said, **nothing}


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


def test_lsdb_finds_objects_by_their_names_and_by_their_class_and_matches_them_with_others(
    sky: Sky, exported: tuple[Path, dict[str, Any]]
) -> None:
    import lsdb

    names = sky.names
    with dask.config.set(scheduler="threads"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        catalog = lsdb.open_catalog(exported[0])
        name = list(sky.light_curves)[3]
        (row,) = catalog.id_search(values={names.object_id: name}).compute().itertuples()
        assert row.alerts == len(sky.light_curves[name])

        label = "finkclass" if names.record is None else "pred_main_label_classifier"
        everything = catalog.compute()
        chosen = everything[label].dropna().mode()[0]
        value = repr(chosen) if isinstance(chosen, str) else chosen
        of_class = catalog.query(f"{label} == {value}").compute()
        assert set(of_class[names.object_id]) == set(everything[everything[label] == chosen][names.object_id])

        # Somebody else's catalog: the same places, a second of arc away.
        theirs = everything[["ra", "dec"]].reset_index(drop=True).assign(dec=lambda each: each["dec"] + 1 / 3600)
        theirs["number"] = range(len(theirs))
        other = lsdb.from_dataframe(theirs, ra_column="ra", dec_column="dec", margin_threshold=10.0)
        matched = other.crossmatch(catalog, radius_arcsec=2, suffixes=("_theirs", "_fink")).compute()
        assert len(matched) == len(everything)

        movers = lsdb.open_catalog(exported[0] / MOVERS).compute()
        assert len(movers) == sky.homeless
        found = lsdb.open_catalog(exported[0] / MOVERS).id_search(
            values={names.source_id: movers[names.source_id].iloc[0]}
        )
        assert len(found.compute()) == 1


def test_hats_import_finds_nothing_wrong_and_would_make_the_same_pixels(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hats_import.catalog.file_readers import ParquetPyarrowReader
    from hats_import.collection.arguments import CollectionArguments
    from hats_import.collection.run_import import run
    from hats_import.verification.arguments import VerificationArguments
    from hats_import.verification.run_verification import run as verify

    most = 40
    monkeypatch.setattr(Objects, "most_in_file", most)
    monkeypatch.setattr(Objects, "weights", lambda _, rows: np.ones(rows.num_rows, dtype=np.int64))
    export_hats(sky.ledger.outdir, tmp_path / "ours", [sky.names.source_id])
    ours = content_of(tmp_path / "ours")
    rows = pa.concat_tables([table for (what, _), table in ours.items() if not what]).drop_columns("_healpix_29")
    pq.write_table(rows, tmp_path / "objects.parquet")
    arguments = (
        CollectionArguments(
            output_path=tmp_path, output_artifact_name="theirs", tmp_dir=tmp_path, progress_bar=False, resume=False
        )
        .catalog(
            input_file_list=[tmp_path / "objects.parquet"],
            file_reader=ParquetPyarrowReader(),
            ra_column="ra",
            dec_column="dec",
            sort_columns=sky.names.object_id,
            highest_healpix_order=8,
            pixel_threshold=most,
            drop_empty_siblings=False,
        )
        .add_margin(margin_threshold=10.0, is_default=True)
    )
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        run(arguments, client)
    theirs = content_of(tmp_path / "theirs")

    def ids(content: dict[tuple[str, str], pa.Table], what: str) -> dict[str, list[Any]]:
        return {
            pixel: sorted(table[sky.names.object_id].to_pylist())
            for (kind, pixel), table in content.items()
            if kind == what and table.num_rows
        }

    assert len(ids(ours, "")) > 3
    for what in ("", "_10arcs"):
        assert ids(ours, what) == ids(theirs, what)
    checked = verify(
        VerificationArguments(
            input_catalog_path=tmp_path / "ours",
            output_path=tmp_path,
            truth_total_rows=len(sky.light_curves),
            verbose=False,
        )
    )
    assert checked.results_df["passed"].all(), checked.results_df.to_string()


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_a_file_that_can_not_be_written_leaves_nothing_and_its_reason_is_said(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(version, "_write_table", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        export_hats(sky.ledger.outdir, tmp_path / "catalog")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_an_error_without_text_is_said_in_a_line_and_leaves_nothing(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise pa.ArrowInvalid("")

    monkeypatch.setattr(hats, "shuffle", fail)
    with pytest.raises(LedgerError, match=r"ArrowInvalid$"):
        export_hats(sky.ledger.outdir, tmp_path / "catalog")
    assert list(tmp_path.iterdir()) == []


def _until(process: subprocess.Popen[str], parent: Path, pattern: str) -> None:
    """Wait until an export has got somewhere."""
    deadline = time.monotonic() + 120
    while not any(parent.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
@pytest.mark.parametrize("at", [".catalog.*.part", ".catalog.*.part/catalog_v1"])
def test_an_export_that_is_stopped_leaves_nothing(sky: Sky, tmp_path: Path, at: str) -> None:
    command = [*PROGRAM, "export-hats", str(sky.ledger.outdir), str(tmp_path / "catalog")]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(process, tmp_path, at)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    (line,) = remarks(err)
    assert str(tmp_path / "catalog") in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_a_growth_that_is_stopped_leaves_the_catalog_as_it_was(sky: Sky, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    night = made_up_alerts(AlertKind.ZTF_LIGHT, 20)
    add_night(tmp_path / "ftransfer_0", avro_schema(AlertKind.ZTF_LIGHT), list(night))
    export_hats(tmp_path / "ftransfer_0", catalog)
    before = sorted(catalog.rglob("*"))
    command = [*PROGRAM, "export-hats", str(sky.ledger.outdir), str(catalog)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(process, catalog, ".growing")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    (line,) = remarks(err)
    assert str(catalog) in line
    result = run_cli("export-hats", str(tmp_path / "ftransfer_0"), str(catalog))
    assert (result.returncode, remarks(result.stderr)) == (0, [])
    assert sorted(catalog.rglob("*")) == before


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
def test_an_export_that_is_killed_leaves_no_catalog_and_the_next_one_says_what_is_left(
    sky: Sky, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog"
    command = [*PROGRAM, "export-hats", str(sky.ledger.outdir), str(catalog)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until(process, tmp_path, ".catalog.*.part/catalog_v1")
    process.kill()
    process.communicate(timeout=300)
    (left,) = tmp_path.iterdir()
    assert left != catalog
    # The dataset, too, lacks a range now: what is there is exported, with a word.
    copy = Ledger(tmp_path / "alerts")
    subprocess.run(["cp", "-r", sky.ledger.outdir, sky.ledger.path, tmp_path], check=True)
    marker = copy.markers(copy.plans())[0]
    copy.marker_path(marker.range).unlink()
    result = run_cli("export-hats", str(copy.outdir), str(catalog))
    assert result.returncode == 3
    assert str(left) in result.stderr
    assert f"{len(marker.range):,} planned offsets missing" in result.stderr
    rows = fink_dask.open_dataset(copy.outdir).count_rows()
    assert rows < fink_dask.open_dataset(sky.ledger.outdir).count_rows()
    assert (catalog / "collection.properties").is_file()


@pytest.mark.parametrize("sky", [AlertKind.ZTF_LIGHT], indirect=True, ids=["ztf-light"])
@pytest.mark.parametrize(
    ("catalog", "more", "status", "words"),
    [
        ("alerts", (), 2, "inside"),
        ("alerts/catalog", (), 2, "inside"),
        ("alerts.fink/catalog", (), 2, "inside"),
        ("no/catalog", (), 2, "/no "),
        ("catalog", ("--columns", "nothing"), 2, "--columns nothing"),
        ("catalog", ("--history",), 2, "--history"),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(
    sky: Sky, catalog: str, more: tuple[str, ...], status: int, words: str
) -> None:
    before, parent = hashes_of(sky.ledger), sky.ledger.outdir.parent
    result = run_cli("export-hats", str(sky.ledger.outdir), str(parent / catalog), *more)
    assert (result.returncode, result.stdout, len(remarks(result.stderr))) == (status, "", 1)
    assert words in result.stderr
    assert hashes_of(sky.ledger) == before
    assert sorted(path.name for path in parent.iterdir()) == ["alerts", "alerts.fink"]


@pytest.mark.sample
def test_without_hats_a_line_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['hats'] = None; from fink_dask.catalog.hats import *;"
        f"export_hats(Path({str(tmp_path)!r}), Path({str(tmp_path / 'c')!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ended.stderr.endswith("pip install 'fink-dask[hats]'\n")
