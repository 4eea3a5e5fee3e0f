"""Light curves show what was measured, whatever fillers a packet has."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.dataset.surveys import find_fields
from fink_dask.report.curve import page_of
from fink_dask.report.examples import find_examples, find_objects
from fink_dask.report.sample import choose_pieces

ZTF = {"time": "jd", "value": "magpsf", "error": "sigmapsf", "band": "fid"}
LSST = {"time": "midpointMjdTai", "value": "psfFlux", "error": "psfFluxErr", "band": "band"}


@pytest.mark.parametrize(
    ("names", "history", "value", "fillers"),
    [
        (ZTF, "prv_candidates", 18.0, [math.inf, -math.inf, math.nan, None, -999.0, 1e30]),
        (LSST, "prvDiaSources", 1200.0, [math.inf, -math.inf, math.nan, None, -999.0]),
    ],
    ids=["magnitudes", "fluxes"],
)
def test_an_error_that_is_none_has_no_bar_and_its_measurement_stays(
    names: dict[str, str], history: str, value: float, fillers: list[float | None], tmp_path: Path
) -> None:
    now: dict[str, object] = {names["time"]: 60_000.0, names["value"]: value, names["error"]: 0.25, names["band"]: None}
    earlier = [now | {names["time"]: 59_000.0 + day, names["error"]: error} for day, error in enumerate(fillers)]
    pq.write_table(pa.Table.from_pylist([now | {history: earlier}]), tmp_path / "one.parquet")
    dataset = ds.dataset(tmp_path)
    pieces = choose_pieces(dataset, dict.fromkeys(dataset.files, 1))
    (example,) = find_examples(dataset, pieces, find_fields(dataset.schema), with_stamps=False)
    (points,) = example.curve.values()
    assert points.values.tolist() == [value] * (len(fillers) + 1)
    assert points.errors.tolist() == [0.0] * len(fillers) + [0.25]
    assert np.ptp(points.days) == 1000


@pytest.mark.parametrize(
    ("names", "history", "value", "wrong"),
    [
        (ZTF, "prv_candidates", 18.0, [-999.0, 99.0, math.inf]),
        (LSST, "prvDiaSources", -1200.0, [1e30, -1e30, math.inf]),
    ],
    ids=["magnitudes", "fluxes"],
)
def test_a_point_that_can_not_be_makes_no_needle_of_the_others_and_is_counted(
    names: dict[str, str], history: str, value: float, wrong: list[float], tmp_path: Path
) -> None:
    now: dict[str, object] = {names["time"]: 60_000.0, names["value"]: value, names["error"]: 0.25, names["band"]: None}
    right = [now | {names["time"]: 59_990.0}, now | {names["value"]: None}]
    bad = [now | {names["value"]: each} for each in wrong]
    bad += [now | {names["time"]: each} for each in (0.0, 87_000.0, math.inf)]
    pq.write_table(pa.Table.from_pylist([now | {history: [*right, *bad]}]), tmp_path / "one.parquet")
    dataset = ds.dataset(tmp_path)
    pieces = choose_pieces(dataset, dict.fromkeys(dataset.files, 1))
    (example,) = find_examples(dataset, pieces, find_fields(dataset.schema), with_stamps=False)
    (points,) = example.curve.values()
    assert points.days.tolist() == [-10.0, 0.0]
    assert points.values.tolist() == [value, value]
    assert example.beyond == len(bad)


def test_what_is_in_the_solar_system_has_its_own_name_and_hides_no_other(tmp_path: Path) -> None:
    seen = {"diaSourceId": 1, "diaObjectId": 0, "midpointMjdTai": 60_000.0, "psfFlux": 1.0, "band": "r"}
    named = [{"designation": "2020 SJ88"}, {"designation": "2004 JQ12"}, {"designation": None}, None]
    rows = [{"diaSource": seen | {"diaSourceId": n}, "ssSource": mover} for n, mover in enumerate(named)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet")
    dataset = ds.dataset(tmp_path)
    pieces = choose_pieces(dataset, dict.fromkeys(dataset.files, 1))
    found = find_examples(dataset, pieces, find_fields(dataset.schema), with_stamps=False)
    assert {each.source: each.name for each in found} == {"0": "2020 SJ88", "1": "2004 JQ12", "2": "", "3": ""}


def test_alerts_with_most_detections_are_shown_and_not_those_with_most_limits(tmp_path: Path) -> None:
    def alert(name: str, detections: int, limits: int) -> dict[str, object]:
        seen = [{"jd": 10.0 + day, "magpsf": 18.0, "diffmaglim": 20.0, "fid": 1} for day in range(detections)]
        unseen = [{"jd": 1.0 + day / 100, "magpsf": None, "diffmaglim": 19.5, "fid": 2} for day in range(limits)]
        return {"objectId": name, "jd": 40.0, "magpsf": 17.0, "fid": 1, "prv_candidates": unseen + seen}

    rows = [alert(f"new {number}", 1, 90) for number in range(8)] + [alert("old", 30, 2), alert("older", 40, 0)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet")
    dataset = ds.dataset(tmp_path)
    pieces = choose_pieces(dataset, dict.fromkeys(dataset.files, len(rows)))
    found = find_examples(dataset, pieces, find_fields(dataset.schema), with_stamps=False)
    assert [example.name for example in found[:2]] == ["older", "old"]
    curve = found[1].curve
    assert (len(curve["g"].values), len(curve["g"].limits)) == (31, 0)
    assert curve["r"].limits.tolist() == [19.5, 19.5], "an upper limit is no detection, and is drawn"
    assert len(curve["r"].values) == 0


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_alerts_without_a_history_are_shown_as_objects_with_many_alerts(survey: str) -> None:
    names = {
        "ztf": ("objectId", "candid", "jd", "magpsf", "sigmapsf", "fid", 1),
        "lsst": ("diaObjectId", "diaSourceId", "midpointMjdTai", "scienceFlux", "scienceFluxErr", "band", "g"),
    }[survey]
    *columns, band = names
    objects = ["1", "2", "1", "1", "3", "2", "0", "0", "0", "0"]
    kinds = [pa.string() if survey == "ztf" else pa.int64(), pa.int64(), *[pa.float64()] * 3]
    schema = pa.schema(
        [*zip(columns[:5], kinds, strict=True), ("band" if survey == "lsst" else "fid", pa.array([band]).type)]
    )
    rows = [
        dict(zip(columns, [name if survey == "ztf" else int(name), at, 60_000.0 - at, 18.0, 0.1, band], strict=True))
        for at, name in enumerate(objects)
    ]
    fields = find_fields(schema)
    table = pa.Table.from_pylist(rows, schema=schema)
    by_role = pa.table({role: table[path] for role, path in fields.paths.items()})
    first, second, *_ = find_objects(by_role, fields)
    assert (first.name, second.name) == ("1", "2")
    assert first.curve["g"].days.tolist() == [-3.0, -2.0, 0.0]
    assert "0" not in {example.name for example in find_objects(by_role, fields)}


def test_a_band_without_a_point_is_in_no_legend() -> None:
    columns = {
        "mjd": [1.0, 2.0, 3.0, 4.0],
        "band": ["g", "r", "i", "i"],
        "value": [18.0, None, math.nan, None],
        "limit": [None, 19.0, None, None],
        "error": [None, None, 0.1, 0.1],
        "kind": ["alert", "limit", "alert", "limit"],
    }
    one = {"positive": True, "quantity": "magpsf", "unit": "mag", "scale": "utc"}
    kinds = {name: pa.float64() for name in ("mjd", "value", "limit", "error")}
    curve = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})
    for name, value in one.items():
        curve = curve.append_column(name, pa.repeat(pa.scalar(value), 4))
    drawn = page_of(curve, "ZTF18aa")
    assert [f"{band} {kind}" in drawn for band, kind in zip("grii", columns["kind"], strict=True)] == [
        *(True, True, False, False),
    ]


def test_a_class_that_is_a_number_has_its_name_and_one_that_is_new_the_name_of_its_column() -> None:
    schema = pa.schema([("pred", pa.struct([("main_label_classifier", pa.int32())])), ("diaObjectId", pa.int64())])
    fields = find_fields(schema)
    fields = fields.of_class(*fields.classes)
    assert [fields.class_name(value) for value in (11, -1, 77, None)] == [
        "SN-like (11)",
        "not processed (-1)",
        "main_label_classifier 77",
        "",
    ]
