"""The alerts that come with the package are a survey's: no two are alike, and objects stay where they are."""

from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import pytest

import fink_dask.demo
from fink_dask.demo.alerts import AlertKind, play_alerts, recorded_schema
from fink_dask.errors import SettingsError
from tests.alerts.made_up import avro_schema

every_kind = pytest.mark.parametrize("kind", list(AlertKind))
#: More than a file has, so that it is played again.
COUNTS = {AlertKind.ZTF_LIGHT: 700, AlertKind.ZTF_FULL: 20, AlertKind.LSST_LIGHT: 700, AlertKind.LSST_FULL: 10}
MOST_BYTES = 600_000


def decoded(kind: AlertKind, count: int, **options: int) -> list[dict[str, Any]]:
    schema = fastavro.parse_schema(json.loads(recorded_schema(kind)))
    found = []
    for value in play_alerts(kind, count, **options):
        alert = fastavro.schemaless_reader(io.BytesIO(value), schema, None)
        assert isinstance(alert, dict)
        found.append(alert)
    return found


def detection(alert: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = alert.get("candidate") or alert.get("diaSource") or alert
    return found


def test_a_wheel_stays_small() -> None:
    assert sum(path.stat().st_size for path in Path(fink_dask.demo.__file__).parent.glob("*.avro")) < MOST_BYTES


@every_kind
def test_they_are_those_of_the_tests(kind: AlertKind) -> None:
    assert json.loads(recorded_schema(kind)) == json.loads(json.dumps(avro_schema(kind))), "python -m tests.alerts.pack"


@every_kind
def test_ids_are_unique_whoever_adds_alerts_later_and_lost_by_whoever_passes_them_through_a_float(
    kind: AlertKind,
) -> None:
    count = COUNTS[kind]
    field = "candid" if kind.startswith("ztf") else "diaSourceId"
    alerts = [*decoded(kind, count), *decoded(kind, count, first_number=count, seed=5)]
    ids = {alert[field] for alert in alerts}
    assert len(ids) == 2 * count
    assert all(int(float(number)) != number for number in ids)
    assert all(detection(alert).get(field, alert[field]) == alert[field] for alert in alerts)


@every_kind
def test_an_object_is_one_object_wherever_its_alerts_are(kind: AlertKind) -> None:
    places: dict[Any, list[tuple[float, float]]] = {}
    for alert in decoded(kind, COUNTS[kind]):
        where = detection(alert)
        assert 0 <= where["ra"] < 360
        assert -90 < where["dec"] < 90
        if name := alert.get("objectId") or where["diaObjectId"]:  # what moves has 0
            places.setdefault(name, []).append((where["ra"], where["dec"]))
    assert len(places) > COUNTS[kind] // 5
    for (ra, dec), *others in places.values():
        assert all(abs(there[0] - ra) < 0.01 and abs(there[1] - dec) < 0.01 for there in others)
    assert len({round(place[0][0]) for place in places.values()}) > len(places) // 4, "they are all over the sky"


@every_kind
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(kind: AlertKind) -> None:
    alerts = list(play_alerts(kind, 8, seed=7))
    assert alerts == list(play_alerts(kind, 8, seed=7))
    assert alerts == list(islice(play_alerts(kind, COUNTS[kind], seed=7), 8))
    assert not set(alerts) & set(play_alerts(kind, 8, seed=8))


@pytest.mark.parametrize("wrong", [{"count": -1}, {"seed": -1}, {"first_number": -1}])
def test_a_wrong_argument_is_refused_before_the_first_alert(wrong: dict[str, int]) -> None:
    arguments: dict[str, Any] = {"count": 1} | wrong
    with pytest.raises(SettingsError):
        play_alerts(AlertKind.ZTF_LIGHT, **arguments)
