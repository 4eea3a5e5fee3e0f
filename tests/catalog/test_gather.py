"""Every alert of an object is in its light curve, once and in the order of time, however the alerts are spread."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from fink_dask.catalog import buckets, reading
from fink_dask.catalog.buckets import Buckets, shuffle
from fink_dask.catalog.form import Form, find_form, paths_in
from fink_dask.catalog.gather import Alerts, Movers, Objects
from fink_dask.catalog.reading import Reader
from fink_dask.dataset.read import open_parts
from fink_dask.errors import LedgerError, SettingsError
from tests.harness.nights import add_night

BIG = 2**60 + 1
ZTF_LIGHT = pa.schema(
    [
        ("objectId", pa.string()),
        ("candid", pa.int64()),
        ("jd", pa.float64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("prv_candidates", pa.list_(pa.struct([("jd", pa.float64())]))),
        ("finkclass", pa.string()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
    ]
)
DIA_SOURCE = pa.struct(
    [
        ("diaSourceId", pa.int64()),
        ("diaObjectId", pa.int64()),
        ("midpointMjdTai", pa.float64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
    ]
)
LSST_FULL = pa.schema(
    [
        ("diaSourceId", pa.int64()),
        ("diaSource", DIA_SOURCE),
        ("cutoutScience", pa.binary()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
    ]
)


def _alert(number: int, name: str | None, jd: float | None, **more: Any) -> dict[str, Any]:
    place = {"kafka_partition": number % 3, "kafka_offset": number}
    return {
        "objectId": name,
        "candid": BIG + number,
        "jd": jd,
        "ra": 10.0,
        "dec": 20.0,
        "finkclass": "SN",
        **place,
        **more,
    }


def _read(rows: list[dict[str, Any]], schema: pa.Schema, form: Form) -> Alerts:
    """Read alerts from a file, as an export does."""
    alerts = pa.Table.from_pylist(rows, schema=schema)
    columns = {name: pc.field(*path.split(".")) for name, path in paths_in(schema, form).items()}
    table = ds.dataset(alerts).to_table(columns=columns)
    for field in form.columns:
        if field.name not in columns:
            table = table.append_column(
                field, pa.repeat(pa.scalar("a topic" if field.name == "topic" else None, field.type), len(rows))
            )
    return Alerts(Objects(form).flatten(table, None))


def _light_curves(rows: list[dict[str, Any]], schema: pa.Schema = ZTF_LIGHT) -> tuple[list[dict[str, Any]], int]:
    form = find_form([schema])
    objects, duplicates = Objects(form).gather(_read(rows, schema, form))
    again, none = Objects(form).gather(Objects(form).take_apart(objects))
    # That is how an object gets more alerts. NaN is no number, nor itself.
    assert (repr(again.to_pylist()), none) == (repr(objects.to_pylist()), 0)
    return objects.to_pylist(), duplicates


def test_the_alerts_of_an_object_are_in_the_order_of_time_and_the_newest_speaks_for_it() -> None:
    rows = [
        _alert(0, "b", 3.0, finkclass="QSO", ra=11.0),
        _alert(1, "a", 5.0),
        _alert(2, "b", 1.0),
        _alert(3, "b", None),
        _alert(4, "b", float("nan")),
        _alert(5, "b", 2.0),
    ]
    (first, second), duplicates = _light_curves(rows)
    assert duplicates == 0
    assert (first["objectId"], first["alerts"], first["lightcurve"]["candid"]) == ("a", 1, [BIG + 1])
    assert (second["objectId"], second["alerts"], second["ra"], second["finkclass"]) == ("b", 5, 11.0, "QSO")
    assert second["lightcurve"]["candid"] == [BIG + 3, BIG + 4, BIG + 2, BIG + 5, BIG + 0]
    assert second["lightcurve"]["alert_ra"] == [10.0, 10.0, 10.0, 10.0, 11.0]


def test_an_alert_that_was_sent_twice_is_there_once_and_counted() -> None:
    rows = [_alert(0, "a", 1.0), _alert(1, "a", 2.0), _alert(2, "a", 1.0, candid=BIG)]
    # The same identifier of another object, or none at all, tells nothing.
    rows += [_alert(3, "b", 1.0, candid=BIG), _alert(4, "b", 2.0, candid=None), _alert(5, "b", 3.0, candid=None)]
    (first, second), duplicates = _light_curves(rows)
    assert duplicates == 1
    assert first["lightcurve"]["kafka_offset"] == [0, 1]
    assert second["lightcurve"]["candid"] == [BIG, None, None]


def test_fields_of_the_record_with_the_position_are_taken_and_what_is_no_single_value_is_not() -> None:
    source = {"diaSourceId": BIG, "diaObjectId": BIG + 2, "midpointMjdTai": 61000.5, "ra": 1.0, "dec": 2.0}
    row = {"diaSourceId": BIG, "diaSource": source, "cutoutScience": b"x", "kafka_partition": 0, "kafka_offset": 7}
    ((found,), _) = _light_curves([row], LSST_FULL)
    assert found == {
        "diaObjectId": BIG + 2,
        "ra": 1.0,
        "dec": 2.0,
        "alerts": 1,
        "lightcurve": {
            "diaSourceId": [BIG],
            "midpointMjdTai": [61000.5],
            "alert_ra": [1.0],
            "alert_dec": [2.0],
            "topic": ["a topic"],
            "kafka_partition": [0],
            "kafka_offset": [7],
        },
    }


def test_columns_can_be_chosen_beside_those_that_the_row_of_an_object_is_made_of() -> None:
    form = find_form([LSST_OF_FINK], ["lc_features.mean"])
    of_row = ["pred_main_label_classifier", "diaSourceId", "midpointMjdTai", "ra", "dec"]
    place = ["kafka_partition", "kafka_offset", "topic"]
    expected = {"lc_features_mean", "diaSourceId", "midpointMjdTai", "alert_ra", "alert_dec", *place}
    assert form.nested.keys() == expected | {f"alert_{of_row[0]}"}


def test_columns_of_the_record_with_the_position_have_both_names() -> None:
    assert find_form([LSST_FULL], ["diaSource.midpointMjdTai"]) == find_form([LSST_FULL], ["midpointMjdTai"])
    with pytest.raises(SettingsError, match="midpointMjdTai"):
        find_form([LSST_FULL], ["diaSource.midpointMjdTay"])


@pytest.mark.parametrize(
    ("without", "columns", "words"),
    [
        ("ra", None, "objectId"),
        ("jd", None, "objectId"),
        ("", ["prv_candidates"], "prv_candidates"),
    ],
)
def test_what_no_catalog_can_be_made_of_is_refused(without: str, columns: list[str] | None, words: str) -> None:
    schema = pa.schema([field for field in ZTF_LIGHT if field.name != without])
    with pytest.raises(SettingsError, match=words):
        find_form([schema], columns)


def avro_of(schema: pa.Schema) -> dict[str, Any]:
    """Write the schema of alerts with columns of these types."""
    names = {pa.string(): "string", pa.int64(): "long", pa.float64(): "double", pa.int32(): "int"}
    fields = [
        {"name": field.name, "type": ["null", names[field.type]]}
        for field in schema
        if not field.name.startswith(("kafka_", "prv_"))
    ]
    return {"type": "record", "name": "alert", "fields": fields}


@pytest.mark.parametrize("kind", ["text", "number"])
def test_alerts_that_do_not_fit_in_memory_at_once_come_together_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 30)
    monkeypatch.setattr(reading, "_BATCH_ROWS", 17)
    monkeypatch.setattr(buckets, "_WAITING_BYTES", 2000)
    shuffled = random.Random(1)
    schema, rows = ZTF_LIGHT, [_alert(number, f"ZTF{number % 40}", float(-number)) for number in range(300)]
    rows += [
        _alert(300, None, 1.0),
        _alert(301, "", 1.0),
        _alert(302, "a", 1.0, ra=None),
        _alert(303, "a", 1.0, dec=91.0),
    ]
    rows += [_alert(304, "a", 1.0, ra=float("nan")), _alert(305, None, 1.0, ra=None)]
    if kind == "number":
        numbers = {None: None, "": 0, "a": 5} | {
            f"ZTF{number}": (1 - 2 * (number % 2)) * (BIG + number) for number in range(40)
        }
        schema = pa.schema(
            [
                pa.field("diaObjectId", pa.int64()),
                ("diaSourceId", pa.int64()),
                ("midpointMjdTai", pa.float64()),
                *ZTF_LIGHT,
            ]
        )
        for row in rows:
            row |= {"diaObjectId": numbers[row.pop("objectId")], "diaSourceId": row.pop("candid")}
            row["midpointMjdTai"] = row.pop("jd")
        schema = pa.schema([field for field in schema if field.name not in {"objectId", "candid", "jd"}])
    shuffled.shuffle(rows)
    source = "candid" if kind == "text" else "diaSourceId"
    times = {row[source]: row["kafka_offset"] for row in rows}
    written = [{name: row[name] for name in row if not name.startswith("kafka_")} for row in rows]
    add_night(tmp_path / "alerts", avro_of(schema), written)
    (part,) = open_parts(tmp_path / "alerts")
    form, read = find_form([part.dataset.schema]), []
    objects, movers = Objects(form), Movers(form)
    with (
        Buckets(tmp_path / "first", objects, len(rows), 0, False) as first,
        Buckets(tmp_path / "second", movers, len(rows), 0, False) as second,
    ):
        dealt = shuffle([Reader(part, form)], objects, movers, (first, second), read.append)
        first.close()
        second.close()
        assert (dealt.alerts, dealt.without_object, dealt.without_position, sum(read)) == (306, 2, 4, 306)
        assert len(first) > 5
        found: dict[Any, list[int]] = {}
        for alerts in first.contents():
            for one in objects.gather(alerts)[0].to_pylist():
                assert one[form.object_id] not in found
                found[one[form.object_id]] = [times[name] for name in one["lightcurve"][source]]
        moving = [row for alerts in second.contents() for row in movers.gather(alerts)[0].to_pylist()]
    assert sorted(found.values()) == sorted(list(range(first, 300, 40))[::-1] for first in range(40))
    assert sorted(times[row[source]] for row in moving) == [300, 301]


FINK = pa.struct([("main_label_classifier", pa.int32()), ("is_sso", pa.bool_())])
FEATURES = pa.struct([("mean", pa.float64()), ("all", pa.list_(pa.float64()))])
LSST_OF_FINK = pa.schema([*LSST_FULL, ("pred", FINK), ("lc_features", FEATURES)])


def test_what_fink_has_found_out_is_in_the_catalog_and_the_newest_class_beside_the_usual_one() -> None:
    rows = [
        {
            "diaSourceId": number,
            "diaSource": {
                "diaSourceId": number,
                "diaObjectId": name,
                "midpointMjdTai": 60000.0 + number,
                "ra": 1.0,
                "dec": 2.0,
            },
            "pred": None if label is None else {"main_label_classifier": label, "is_sso": False},
            "lc_features": {"mean": number / 2, "all": []},
            "kafka_partition": 0,
            "kafka_offset": number,
        }
        for number, (name, label) in enumerate([(7, 11), (7, 11), (7, 21), (8, None), (9, 22), (9, 12)])
    ]
    objects, _ = _light_curves(rows, LSST_OF_FINK)
    label = "pred_main_label_classifier"  # a reader of catalogs takes a dot for a nested column
    found = {row["diaObjectId"]: (row[label], row[f"usual_{label}"], row["alerts"]) for row in objects}
    assert found == {7: (21, 11, 3), 8: (None, None, 1), 9: (12, 12, 2)}
    assert objects[0]["lightcurve"]["pred_is_sso"] == [False] * 3
    assert "lc_features_mean" not in objects[0]["lightcurve"]
    with pytest.raises(SettingsError, match=r"lc_features\.all"):
        find_form([LSST_OF_FINK], ["lc_features.all"])


def test_a_catalog_is_of_one_survey_and_has_the_columns_of_all_its_topics() -> None:
    with pytest.raises(LedgerError, match="one survey"):
        find_form([ZTF_LIGHT, LSST_OF_FINK])
    other = pa.schema([*ZTF_LIGHT, ("score", pa.float64())])
    assert find_form([ZTF_LIGHT, other]).columns.field("score").type == pa.float64()
    with pytest.raises(LedgerError, match="score"):
        find_form([other, pa.schema([*ZTF_LIGHT, ("score", pa.string())])])
    with pytest.raises(SettingsError, match="history"):
        find_form([LSST_OF_FINK], has_history=True)
