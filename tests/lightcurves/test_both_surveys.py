"""A directory with topics of ZTF and LSST, of light and full packets, gives the light curve of an object of each."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

import fink_dask
from fink_dask.errors import SettingsError
from fink_dask.ledger.outdir import gather_ledgers
from fink_dask.lightcurves.points import SCHEMA
from fink_dask.report.charts import light_curve
from fink_dask.report.curve import page_of
from fink_dask.report.objects import show_objects
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.harness.cli import remarks, run_cli
from tests.harness.nights import Alert, add_night


def detection_of(alert: Alert) -> Alert:
    found: Alert = alert.get("candidate") or alert.get("diaSource") or alert
    return found


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A topic of each kind; the light and the full packets of LSST are of one object, of which one has no flux."""
    directory = tmp_path_factory.mktemp("both") / "season"
    for kind in AlertKind:
        alerts = list(made_up_alerts(kind, 8))
        if kind in (AlertKind.LSST_LIGHT, AlertKind.LSST_FULL):
            for number, alert in enumerate(alerts):
                detection_of(alert)["diaObjectId"] = 7
                detection_of(alert)["diaSourceId"] = number + 100 * (kind is AlertKind.LSST_FULL)
                # The newest one has cutouts.
                detection_of(alert)["midpointMjdTai"] += 10 * (kind is AlertKind.LSST_FULL)
            last = detection_of(alerts[-1])
            last["diaObjectId"], last["scienceFlux"] = 8, None
            last["psfFlux"] = None
        add_night(directory / f"ftransfer_{kind.value}", avro_schema(kind), alerts)
    gather_ledgers(directory)
    return directory


def name_of_ztf(season: Path) -> str:
    alerts = fink_dask.open_dataset(season / f"ftransfer_{AlertKind.ZTF_FULL.value}")
    return str(alerts.head(1, columns=["objectId"])["objectId"][0])


def test_an_object_of_each_survey_has_one_table_with_its_own_units(season: Path) -> None:
    units = {}
    for name in (name_of_ztf(season), 7):
        curve = fink_dask.light_curve(season, name)
        assert curve.schema.equals(SCHEMA)
        units[name] = set(zip(*(curve[each].to_pylist() for each in ("unit", "scale", "quantity")), strict=True))
    assert list(units.values()) == [
        {("mag", "utc", "magpsf")},
        {("nJy", "tai", "scienceFlux"), ("nJy", "tai", "psfFlux")},
    ]
    with pytest.raises(SettingsError, match=r"diaObjectId.* objectId"):
        fink_dask.light_curve(season, "nobody")


def test_each_object_is_drawn_in_its_unit_and_each_kind_of_flux_by_itself(season: Path) -> None:
    name = name_of_ztf(season)
    examples = show_objects(season, [name, "7"], with_stamps=True)
    assert [(each.name, each.quantity, each.is_flux) for each in examples] == [
        (name, "magpsf", False),
        ("7", "psfFlux", True),
        ("7", "scienceFlux", True),
    ]
    assert [bool(each.stamps) for each in examples] == [True, True, False]
    assert all(each.curve for each in examples)
    (alert,) = (each for each in made_up_alerts(AlertKind.ZTF_FULL, 8) if str(each["candid"]) == examples[0].source)
    assert examples[0].label == alert["finkclass"] != alert["tnsclass"]
    page = page_of(fink_dask.light_curve(season, 7), "7")
    assert all(f"{quantity} (nJy)" in page for quantity in ("psfFlux", "scienceFlux"))
    said = run_cli("lightcurve", str(season), "7").stdout
    assert "psfFlux" in said
    assert "scienceFlux" in said
    assert max(map(len, said.splitlines()[1:])) <= 80, "the table is wider than a terminal"
    axes = [light_curve("curve", each).yaxis[0].axis_label for each in examples]
    assert axes == ["magnitude", "psfFlux (nJy)", "scienceFlux (nJy)"]


@pytest.mark.commands
def test_a_report_of_both_surveys_shows_the_objects_that_it_was_asked_for(season: Path) -> None:
    place, name = season.parent / "r.html", name_of_ztf(season)
    done = run_cli("report", str(season), "--object", name, "--object", "7", "-o", str(place))
    assert done.returncode == 0, done.stderr
    page = place.read_text()
    assert "examples-left-out" not in page
    assert page.count('"psfFlux (nJy)"') == page.count('"magnitude"') == 1


def test_an_object_without_any_brightness_has_no_measurement_and_no_traceback(
    season: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = fink_dask.light_curve(season, 8)
    assert curve.num_rows == 0
    (example,) = show_objects(season, ["8"], with_stamps=False)
    assert example.name == "8"
    place = season.parent / "empty.html"
    done = run_cli("lightcurve", str(season), "8", "--plot", str(place))
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    assert "no brightness" in done.stdout
    assert "no brightness" in place.read_text(), "an empty page"
    # Bokeh's logger writes to the terminal as it was when it was loaded, so it is listened to here.
    monkeypatch.setattr(logging.getLogger("bokeh"), "propagate", True)
    with caplog.at_level("WARNING", logger="bokeh"):
        page_of(curve, "8")
        measured = fink_dask.light_curve(season, 7)
        unknown = pa.nulls(len(measured), pa.float64())
        page_of(measured.set_column(measured.schema.get_field_index("mjd"), "mjd", unknown), "7")
    assert [each.getMessage() for each in caplog.records if each.name.startswith("bokeh")] == []


def test_nothing_is_written_into_a_season_or_its_ledgers_whose_readers_would_take_it_for_alerts(season: Path) -> None:
    name = name_of_ztf(season)
    before = sorted(season.parent.rglob("*"))
    for place in (season, season / "ftransfer_ztf-light", season.with_name("season.fink")):
        for arguments in (
            ("export", season / "ftransfer_ztf-light", place / "all.csv"),
            ("lightcurve", season, name, "--csv", place / "c.csv"),
            ("lightcurve", season, name, "--plot", place / "c.html"),
            ("cutouts", season, "--object", name, "-o", place),
            ("report", season, "-o", place / "r.html"),
            ("export-hats", season / "ftransfer_ztf-light", place / "catalog"),
        ):
            done = run_cli(*map(str, arguments))
            assert done.returncode == 2, done.stderr
            assert "is inside" in done.stderr
    assert sorted(season.parent.rglob("*")) == before


def test_a_season_is_proved_from_python_as_well(season: Path, tmp_path: Path) -> None:
    found = fink_dask.verify(season, progress=False)
    assert found.is_complete
    assert (found.summary.state, found.summary.alerts, found.problems) == ("complete", 8 * len(AlertKind), ())
    for number in range(2):
        add_night(tmp_path / "nights" / f"n{number}", avro_schema(AlertKind.ZTF_LIGHT), made_up(5))
    (file,) = (tmp_path / "nights" / "n1").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    found = fink_dask.verify(tmp_path / "nights", progress=False)
    assert not found.is_complete
    assert found.summary.state == "failed"
    (problem,) = found.problems
    assert problem.startswith("n1: ")
    assert file.name in problem


def made_up(count: int) -> list[Alert]:
    return list(made_up_alerts(AlertKind.ZTF_LIGHT, count))
