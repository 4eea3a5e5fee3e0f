"""Made-up alerts must be as large, as noisy and as awkward as Fink's, or what is measured with them means nothing."""

from __future__ import annotations

import io
import json
import math
from functools import cache
from itertools import islice
from typing import Any

import erfa
import fastavro
import numpy as np
import pytest

from fink_dask.errors import SettingsError
from tests.alerts.made_up import AlertKind, avro_schema, encode, encoded_alerts, encoder, made_up_alerts
from tests.alerts.schemas import record
from tests.harness.alerts_once import alerts_once

FIRST_NIGHT = "2026-02-24"
FIRST_NIGHT_MJD = 61095
#: Kind, number of alerts, the range of their mean size and the largest size allowed, in bytes.
SIZES = [
    (AlertKind.ZTF_LIGHT, 600, (900, 1_200), 1_500),
    (AlertKind.ZTF_FULL, 64, (48_000, 60_000), 70_000),
    (AlertKind.LSST_LIGHT, 600, (1_000, 1_400), 2_200),
    (AlertKind.LSST_FULL, 52, (170_000, 250_000), 360_000),
]
COUNTS = {kind: count for kind, count, _, _ in SIZES}
ID_FIELD = {"ztf": "candid", "lsst": "diaSourceId"}
#: Of what is dear to encode, as full packets are, a few say it.
FEW = 8
every_kind = pytest.mark.parametrize("kind", list(AlertKind))


@cache
def _made(kind: AlertKind) -> list[dict[str, Any]]:
    """Make the alerts once that several tests look at."""
    return list(made_up_alerts(kind, COUNTS[kind]))


def _decoded(schema: Any, datum: bytes) -> Any:
    stream = io.BytesIO(datum)
    alert = fastavro.schemaless_reader(stream, schema, None)
    assert not stream.read()
    return alert


def _same(one: Any, other: Any) -> bool:
    """Compare values and their types, NaN being equal to NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and one == other


def _mjd_utc(kind: AlertKind, alert: dict[str, Any]) -> float:
    if kind.startswith("ztf"):
        jd = alert.get("jd") or alert["candidate"]["jd"]
        return float(jd - erfa.DJM0)
    mjd_tai = alert.get("midpointMjdTai") or alert["diaSource"]["midpointMjdTai"]
    utc_1, utc_2 = erfa.taiutc(erfa.DJM0 + math.floor(mjd_tai), mjd_tai % 1)
    return float((utc_1 - erfa.DJM0) + utc_2)


def _nulls(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_nulls, value.values()))
    return sum(map(_nulls, value)) if isinstance(value, list) else int(value is None)


@pytest.mark.parametrize(("kind", "count", "mean_bytes", "largest_bytes"), SIZES)
def test_benchmarks_move_alerts_of_the_size_of_real_ones(
    kind: AlertKind, count: int, mean_bytes: tuple[int, int], largest_bytes: int
) -> None:
    sizes = [len(datum) for datum in alerts_once(kind, count)]
    assert mean_bytes[0] < np.mean(sizes) < mean_bytes[1]
    assert max(sizes) < largest_bytes


@every_kind
def test_schema_is_valid_json_with_the_value_before_null_as_spark_writes_it(kind: AlertKind) -> None:
    schema = json.loads(json.dumps(avro_schema(kind)))
    fastavro.parse_schema(schema)
    assert (schema["namespace"], schema["name"]) == ("topLevelRecord", "value")
    unions = [field["type"] for field in schema["fields"] if isinstance(field["type"], list)]
    assert unions
    assert all(len(union) == 2 and union[1] == "null" for union in unions)


@every_kind
def test_every_value_survives_a_round_trip_through_avro(kind: AlertKind) -> None:
    schema = fastavro.parse_schema(avro_schema(kind))
    for alert, datum in zip(_made(kind), alerts_once(kind, COUNTS[kind]), strict=True):
        assert _same(alert, _decoded(schema, datum))


@every_kind
def test_naming_the_branches_of_unions_does_not_change_a_byte(kind: AlertKind) -> None:
    quick = encoder(avro_schema(kind))
    for alert in _made(kind)[:FEW]:
        plain = io.BytesIO()
        fastavro.schemaless_writer(plain, avro_schema(kind), alert)
        assert quick(alert) == plain.getvalue() == encode(avro_schema(kind), alert)


@every_kind
def test_ids_are_unique_and_lost_by_whoever_passes_them_through_a_float(kind: AlertKind) -> None:
    field = ID_FIELD[kind.split("-")[0]]
    count = COUNTS[kind]
    ids = [alert[field] for alert in (*_made(kind), *made_up_alerts(kind, count, first_id=count))]
    assert len(set(ids)) == 2 * count
    assert all(2**53 < number < 2**63 and int(float(number)) != number for number in ids)


@every_kind
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(kind: AlertKind) -> None:
    alerts = list(encoded_alerts(kind, FEW, seed=7))
    assert alerts == list(encoded_alerts(kind, FEW, seed=7))
    assert alerts == list(islice(encoded_alerts(kind, 700, seed=7), FEW))
    assert not set(alerts) & set(encoded_alerts(kind, FEW, seed=8))


@every_kind
@pytest.mark.parametrize("nights", [1, 2, 5])
def test_alerts_fill_exactly_the_utc_days_asked_for_even_next_to_midnight(kind: AlertKind, nights: int) -> None:
    count = COUNTS[kind]
    times = np.array(
        [_mjd_utc(kind, alert) for alert in made_up_alerts(kind, count, nights=nights, first_night=FIRST_NIGHT)]
    )
    assert set(np.floor(times)) == {FIRST_NIGHT_MJD + night for night in range(nights)}
    from_midnight_ms = (times - np.round(times)) * 86_400_000
    # ZTF's times are cut off after the seventh decimal of a day, which is 8.64 ms.
    assert np.any((from_midnight_ms > -10) & (from_midnight_ms < 0))
    assert np.any((from_midnight_ms >= 0) & (from_midnight_ms < 1))


@pytest.mark.parametrize("kind", [AlertKind.ZTF_FULL, AlertKind.LSST_FULL])
def test_full_packets_carry_their_own_date_as_integers(kind: AlertKind) -> None:
    for alert in made_up_alerts(kind, 60, nights=10):
        midnight = erfa.cal2jd(alert["year"], alert["month"], alert["day"])[1]
        assert midnight == math.floor(_mjd_utc(kind, alert))
        assert alert["timestamp"].startswith(f"{alert['year']}-{alert['month']:02}-{alert['day']:02} ")


def test_directory_names_meet_spaces_slashes_equals_signs_and_other_letters() -> None:
    classes = {alert["finkclass"] for alert in made_up_alerts(AlertKind.ZTF_LIGHT, 3000)}
    assert {None, "Unknown", "SN candidate", "Solar System MPC", "Cepheid/δ Sct"} <= classes
    types = {alert["tns_type_recomputed"] for alert in made_up_alerts(AlertKind.LSST_LIGHT, 3000)}
    assert {None, "Unknown", "SN Ibc/IIb", "LBV → SN IIn"} <= types
    for names in (classes, types):
        assert any("=" in name for name in names - {None})


@every_kind
def test_nulls_occur_here_and_there(kind: AlertKind) -> None:
    nulls = [_nulls(alert) for alert in _made(kind)[:40]]
    assert sum(nulls) > 20
    assert len(set(nulls)) > 5


def test_light_curves_are_of_one_object_in_order_and_older_than_the_alert() -> None:
    places: dict[str, list[tuple[float, float]]] = {}
    for alert in made_up_alerts(AlertKind.ZTF_FULL, 200, nights=3):
        now, history = alert["candidate"], [row["jd"] for row in alert["prv_candidates"] or []]
        assert history == sorted(history)
        assert all(jd < now["jd"] for jd in history)
        places.setdefault(alert["objectId"], []).append((now["ra"], now["dec"]))
    assert len(places) < 100
    assert all(np.ptp(np.array(seen), axis=0).max() < 0.001 for seen in places.values())


@pytest.mark.parametrize(
    "wrong",
    [{"count": -1}, {"seed": -1}, {"first_id": -1}, {"nights": 0}, {"first_night": "24 February"}, {"kind": "ztf"}],
)
def test_a_wrong_argument_is_refused_before_the_first_alert(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"kind": "ztf-light", "count": 1} | wrong
    with pytest.raises(SettingsError):
        made_up_alerts(**arguments)


@pytest.mark.parametrize(
    ("fields", "nested"), [("text name", {}), ("long id", {"candidate": "int"}), ("nested candidate", {})]
)
def test_a_schema_with_a_slip_is_not_built(fields: str, nested: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        record("alert", fields, **nested)
