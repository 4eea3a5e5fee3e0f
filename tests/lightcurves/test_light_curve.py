"""A light curve has every measurement that the alerts of an object tell of, once, with the values of its record."""

from __future__ import annotations

import json
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import fink_dask
from fink_dask.dataset.surveys import find_fields
from fink_dask.errors import LedgerError, SettingsError
from fink_dask.lightcurves.points import SCHEMA, points_of
from fink_dask.report.objects import show_objects
from tests.alerts.made_up import AlertKind, made_up_alerts
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import fill_topic
from tests.harness.topics import own_topic, remove_topics

pytestmark = pytest.mark.usefixtures("shared_dask")

Alert = dict[str, Any]
BANDS = {1: "g", 2: "r", 3: "i"}


@dataclass(frozen=True)
class Transferred:
    """A dataset, and the alerts of each object as they were sent."""

    outdir: Path
    objects: dict[Any, list[Alert]]


def detection_of(alert: Alert) -> Alert:
    return alert.get("candidate") or alert.get("diaSource") or alert


@pytest.fixture(scope="module", params=list(AlertKind), ids=lambda kind: kind.value)
def sent(request: pytest.FixtureRequest, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transferred]:
    kind: AlertKind = request.param
    outdir = tmp_path_factory.mktemp("curves") / "alerts"
    alerts = list(made_up_alerts(kind, 40))
    objects = defaultdict(list)
    for alert in alerts:
        objects[alert.get("objectId") or detection_of(alert)["diaObjectId"]].append(alert)
    with own_topic(kafka.bootstrap_servers, kind) as topic:
        fill_topic(kafka.bootstrap_servers, topic, kind, len(alerts), partitions=2)
        done = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
        assert done.returncode == 0, done.stderr
        yield Transferred(outdir, objects)


def expected_curve(alerts: list[Alert]) -> list[tuple[Any, ...]]:
    """Walk through the records of an object: MJD, band, value, error, limit, sign and kind of each measurement."""
    is_ztf = "objectId" in alerts[0]
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    moments = set()

    def add(one: Alert, kind: str, identifier: str) -> None:
        if is_ztf:
            value, error, limit = one["magpsf"], one["sigmapsf"], one.get("diffmaglim")
            sign = {"t": True, "1": True, "f": False, "0": False, None: None}[one.get("isdiffpos")]
            time, band = one["jd"] - 2400000.5, BANDS[one["fid"]]
        else:
            light = "psfFlux" not in one
            value, error = (one["scienceFlux"], one["scienceFluxErr"]) if light else (one["psfFlux"], one["psfFluxErr"])
            time, band, limit, sign = one["midpointMjdTai"], one["band"], None, None
        if value is None and limit is None:
            return
        if value is None:
            if (time, band) not in moments:
                found.setdefault((time, band), (time, band, None, None, limit, sign, "limit"))
            return
        found.setdefault((kind == "forced", one[identifier]), (time, band, value, error, limit, sign, kind))
        if kind != "forced":
            moments.add((time, band))

    newest = sorted(alerts, key=lambda alert: time_of(detection_of(alert)), reverse=True)
    for alert in newest:
        add(detection_of(alert), "alert", "candid" if is_ztf else "diaSourceId")
    for alert in newest:
        for one in alert.get("prv_candidates") or alert.get("prvDiaSources") or []:
            add(one, "earlier", "candid" if is_ztf else "diaSourceId")
    for alert in newest:
        for one in alert.get("prvDiaForcedSources") or []:
            add(one, "forced", "diaForcedSourceId")
    return sorted(found.values(), key=str)


def test_the_objects_of_a_dataset_are_listed_with_their_alerts_and_what_moves_by_its_designation(
    sent: Transferred,
) -> None:
    expected = {}
    for name, alerts in sent.objects.items():
        by_name = defaultdict(list)
        for alert in alerts:
            shown = str(name) if name else (alert.get("ssSource") or {}).get("designation")
            by_name[shown].append(time_of(detection_of(alert)) - ("objectId" in alert) * 2400000.5)
        expected |= {shown.strip(): (len(times), min(times), max(times)) for shown, times in by_name.items() if shown}
    said = json.loads(run_cli("lightcurve", str(sent.outdir), "--json").stdout)
    assert said["objects"] == len(expected)
    counts = [one["alerts"] for one in said["most_alerts"]]
    assert counts == sorted((count for count, _, _ in expected.values()), reverse=True)[: len(counts)]
    for one in said["most_alerts"]:
        assert expected[one["object"]] == (one["alerts"], pytest.approx(one["first"]), pytest.approx(one["last"]))
        assert fink_dask.light_curve(sent.outdir, one["object"]).num_rows >= one["alerts"]
    assert said["most_alerts"][0]["object"] in run_cli("lightcurve", str(sent.outdir)).stdout


def time_of(detection: Alert) -> float:
    return float(detection["jd"] if "jd" in detection else detection["midpointMjdTai"])


def test_a_curve_is_what_a_loop_over_the_records_finds(sent: Transferred) -> None:
    kinds = set()
    for name, alerts in sent.objects.items():
        if not name:
            continue
        curve = fink_dask.light_curve(sent.outdir, name)
        assert curve.schema.equals(SCHEMA)
        identified = curve.to_pandas()["source"].dropna()
        assert identified.tolist() == [number for number in curve["source"].to_pylist() if number is not None]
        assert curve["mjd"].to_pylist() == sorted(curve["mjd"].to_pylist())
        rows = zip(
            *(curve[each].to_pylist() for each in ("mjd", "band", "value", "error", "limit", "positive", "kind")),
            strict=True,
        )
        assert sorted(rows, key=str) == expected_curve(alerts)
        kinds |= set(curve["kind"].to_pylist())
        identifiers = {detection_of(alert).get("candid") or alert.get("diaSourceId") for alert in alerts}
        assert set(curve["alert"].to_pylist()) <= identifiers
    is_full = any({"prv_candidates", "prvDiaSources"} & alerts[0].keys() for alerts in sent.objects.values())
    assert "alert" in kinds
    assert ({"earlier", "limit"} <= kinds or {"earlier", "forced"} <= kinds) == is_full


def test_the_name_of_no_object_is_refused_with_what_a_name_is(sent: Transferred) -> None:
    is_ztf = isinstance(next(iter(sent.objects)), str)
    names = ["ZTF00nobody", "1"] if is_ztf else ["2", "0", "x" * 500, "9" * 30, ""]
    for name in names:
        with pytest.raises(SettingsError) as caught:
            fink_dask.light_curve(sent.outdir, name)
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


def test_an_alert_that_two_topics_of_a_season_hold_is_one_measurement(kafka: Any, tmp_path: Path) -> None:
    stem, season = f"ftransfer_ztf_2026-11-{uuid.uuid4().int % 10**8:08d}", tmp_path / "season"
    topics = [f"{stem}_1", f"{stem}_2"]
    try:
        for topic, count in zip(topics, (6, 12), strict=True):  # the shorter one is the beginning of the longer one
            fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_FULL, count, partitions=1)
        done = run_cli(*transfer_arguments(kafka, f"{stem}_*", season, "-partitionby", "time"))
        assert done.returncode == 0, done.stderr
    finally:
        remove_topics(kafka.bootstrap_servers, *topics)
    for name in fink_dask.open_dataset(season).to_table(columns=["objectId"])["objectId"].unique().to_pylist():
        assert fink_dask.light_curve(season, name).equals(fink_dask.light_curve(season / topics[1], name))


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_alerts_of_light_and_of_full_packets_make_one_light_curve(kafka: Any, tmp_path: Path, survey: str) -> None:
    """And the other survey's alerts in the same directory are in nobody's way."""
    stem, season = f"2026-11-{uuid.uuid4().int % 10**8:08d}", tmp_path / "season"
    other = AlertKind.LSST_FULL if survey == "ztf" else AlertKind.ZTF_LIGHT
    kinds = {
        f"ftransfer_{survey}_{stem}_1": AlertKind(f"{survey}-light"),
        f"ftransfer_{survey}_{stem}_2": AlertKind(f"{survey}-full"),
        f"ftransfer_{other.value[:4].strip('-')}_{stem}_3": other,
    }
    sent: dict[str, list[Alert]] = {}
    try:
        for topic, kind in kinds.items():
            oracle = fill_topic(kafka.bootstrap_servers, topic, kind, 30, partitions=1)
            sent[topic] = [oracle.alert(place) for place in oracle.values]
            done = run_cli(*transfer_arguments(kafka, topic, season / topic))
            assert done.returncode == 0, done.stderr
    finally:
        remove_topics(kafka.bootstrap_servers, *kinds)
    light, full, _ = sent.values()
    names = {alert.get("objectId") or detection_of(alert)["diaObjectId"] for alert in (*light, *full)} - {0, None}
    for name in names:
        expected = {
            int(detection_of(alert).get("candid") or alert["diaSourceId"])
            for alert in (*light, *full)
            if (alert.get("objectId") or detection_of(alert)["diaObjectId"]) == name
        }
        curve = fink_dask.light_curve(season, name)
        own = {
            source for source, kind in zip(*map(curve.column, ("source", "kind")), strict=True) if str(kind) == "alert"
        }
        assert {source.as_py() for source in own} == expected, "alerts of one kind of packets are lost"


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        fink_dask.light_curve(tmp_path / "nothing", "ZTF18abcdefg")


def measured(number: int | None, jd: float | None, **more: Any) -> Alert:
    return {"candid": number, "jd": jd, "fid": 1, "magpsf": 18.5, "sigmapsf": 0.1, "diffmaglim": 20.0} | more


def curve_of(*alerts: Alert) -> pa.Table:
    """Make a light curve of ZTF alerts: the measurement, and ``history``."""
    rows = [alert | {"objectId": "ZTF1", "history": alert.get("history")} for alert in alerts]
    entry = pa.struct(
        {"candid": pa.int64(), "jd": pa.float64(), "fid": pa.int32(), "magpsf": pa.float32()}
        | {"sigmapsf": pa.float32(), "diffmaglim": pa.float32()}
    )
    flat = pa.schema({"objectId": pa.string(), **{field.name: field.type for field in entry}})
    fields = find_fields(flat.append(pa.field("prv_candidates", pa.list_(entry))))
    table = pa.Table.from_pylist(rows, schema=flat.append(pa.field("history", pa.list_(entry))))
    roles = {
        "candid": "source",
        "jd": "time",
        "fid": "band",
        "magpsf": "value",
        "sigmapsf": "error",
        "diffmaglim": "limit",
    }
    return points_of([(table.rename_columns([roles.get(name, name) for name in table.column_names]), fields)])


def test_what_several_alerts_tell_of_is_there_once_and_a_detection_is_no_limit() -> None:
    first = measured(1, 2460000.5)
    limit = measured(None, 2459990.5, magpsf=None)
    seen = measured(7, 2459995.5)
    second = measured(2, 2460010.5, history=[limit, seen, first])
    third = measured(
        3, 2460020.5, history=[seen, first, second | {"history": None}, measured(None, 2459995.5, magpsf=None)]
    )
    alerts = [first | {"history": [limit]}, second, third]
    random.Random(1).shuffle(alerts)
    curve = curve_of(*alerts)
    assert curve["kind"].to_pylist() == ["limit", "earlier", "alert", "alert", "alert"]
    assert curve["source"].to_pylist() == [None, 7, 1, 2, 3]
    assert curve["mjd"].to_pylist() == [59990.0, 59995.0, 60000.0, 60010.0, 60020.0]
    assert curve["alert"].to_pylist() == [2, 3, 1, 2, 3]
    assert curve["limit"].to_pylist() == [20.0] * 5


def test_what_has_no_time_or_neither_brightness_nor_limit_is_no_point_and_other_filters_have_their_number() -> None:
    history = [measured(5, None), measured(6, 2459990.5, magpsf=None, diffmaglim=None)]
    curve = curve_of(measured(1, 2460000.5, fid=9, history=[*history, measured(8, 2459991.5, fid=None)]))
    assert curve["source"].to_pylist() == [8, 1]
    assert curve["band"].to_pylist() == [None, "9"]


def test_a_report_calls_an_object_by_the_class_that_its_alerts_show_first(sent: Transferred) -> None:
    name, alerts = max(sent.objects.items(), key=lambda each: len(each[1]) if each[0] else 0)
    newest = max(alerts, key=lambda alert: time_of(detection_of(alert)))
    if "finkclass" in newest:
        (shown,) = show_objects(sent.outdir, [str(name)], with_stamps=False)
        assert shown.label == newest["finkclass"]
