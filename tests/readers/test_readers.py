"""Every reader opens the same dataset and finds what was published: counts, ids, classes, light curves, cutouts."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import duckdb
import nested_pandas as npd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from astropy.io import fits

import fink_dask
from benchmarks.environments import python_of, spark_environment
from tests.alerts.made_up import AlertKind, made_up_alerts
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import fill_with
from tests.harness.topics import own_topic

pytestmark = [pytest.mark.readers, pytest.mark.usefixtures("shared_dask")]

ROOT = Path(__file__).resolve().parents[2]
#: What the documentation gives pandas.
HIVE = ds.partitioning(flavor="hive")
SPARK_JOB = Path(__file__).with_name("spark_job.py")


@dataclass(frozen=True)
class Names:
    """What a survey calls things; dots lead into structs."""

    source_id: str
    object_id: str
    time: str
    value: str
    label: str
    history: str | None
    cutout: str | None


@dataclass(frozen=True)
class Case:
    """A kind of topic."""

    kind: AlertKind
    count: int
    names: Names


CASES = [
    Case(AlertKind.ZTF_LIGHT, 400, Names("candid", "objectId", "jd", "magpsf", "finkclass", None, None)),
    Case(
        AlertKind.ZTF_FULL,
        80,
        Names(
            "candid",
            "objectId",
            "candidate.jd",
            "candidate.magpsf",
            "finkclass",
            "prv_candidates",
            "cutoutScience.stampData",
        ),
    ),
    Case(
        AlertKind.LSST_LIGHT,
        300,
        Names("diaSourceId", "diaObjectId", "midpointMjdTai", "scienceFlux", "tns_type_recomputed", None, None),
    ),
    Case(
        AlertKind.LSST_FULL,
        80,
        Names(
            "diaSourceId",
            "diaSource.diaObjectId",
            "diaSource.midpointMjdTai",
            "diaSource.psfFlux",
            "tns_type_recomputed",
            "prvDiaSources",
            "cutoutScience",
        ),
    ),
]


@dataclass(frozen=True)
class Found:
    """What a reader makes of a dataset."""

    count: int
    #: Their identifiers, in order.
    ids: list[int]
    #: How many alerts of each class the second night has; the class as text, ``None`` for null.
    classes: list[tuple[str, int]]
    #: Identifier, time and brightness of the alerts of one object, in the order of time.
    curve: list[tuple[int, float, float]]
    #: How many earlier measurements each of them has; empty if light alerts have none.
    history: list[int]
    #: The first of their cutouts, in Base64.
    cutout: str | None


@dataclass(frozen=True)
class Dataset:
    """A dataset, one of its objects, and what a reader should find."""

    case: Case
    path: Path
    target: str | int
    day: int
    expected: Found


def image(number: int) -> np.ndarray:
    """Make a cutout up: a star on a slope."""
    y, x = np.mgrid[:21, :21]
    star = 100 * np.exp(-((x - 10) ** 2 + (y - 10) ** 2) / 8)
    return (star + x + number % 7).astype(np.float32)


def fits_bytes(number: int) -> bytes:
    """Write a cutout as FITS."""
    content = io.BytesIO()
    fits.PrimaryHDU(image(number)).writeto(content)
    return content.getvalue()


def _with_cutouts(alerts: list[dict[str, Any]], case: Case) -> None:
    """Give alerts cutouts that are images, as the surveys send them: ZTF's are compressed."""
    for number, alert in enumerate(alerts):
        if case.kind is AlertKind.ZTF_FULL:
            alert["cutoutScience"]["stampData"] = gzip.compress(fits_bytes(number), mtime=0)
        elif case.kind is AlertKind.LSST_FULL:
            alert["cutoutScience"] = fits_bytes(number)


def _at(alert: dict[str, Any], path: str) -> Any:
    value: Any = alert
    for name in path.split("."):
        value = value[name]
    return value


def _expected(alerts: list[dict[str, Any]], names: Names, target: str | int, day: int) -> Found:
    of_day = [alert for alert in alerts if int(alert["timestamp"][8:10]) == day]
    curve = sorted(
        (alert for alert in alerts if _at(alert, names.object_id) == target), key=lambda one: _at(one, names.time)
    )
    cutout = None if names.cutout is None else base64.b64encode(_at(curve[0], names.cutout)).decode()
    return Found(
        len(alerts),
        sorted(alert[names.source_id] for alert in alerts),
        sorted(Counter(str(alert[names.label]) for alert in of_day).items()),
        [(one[names.source_id], _at(one, names.time), _at(one, names.value)) for one in curve],
        [] if names.history is None else [len(one[names.history] or []) for one in curve],
        cutout,
    )


@pytest.fixture(scope="module")
def datasets(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[AlertKind, Dataset]:
    """Transfer a topic of each kind."""
    return {case.kind: _transferred(case, kafka, tmp_path_factory.mktemp(case.kind.value)) for case in CASES}


@pytest.fixture(params=CASES, ids=lambda case: case.kind.value)
def dataset(request: pytest.FixtureRequest, datasets: dict[AlertKind, Dataset]) -> Dataset:
    return datasets[request.param.kind]


def _transferred(case: Case, kafka: Any, directory: Path) -> Dataset:
    made = list(made_up_alerts(case.kind, case.count))
    _with_cutouts(made, case)
    with own_topic(kafka.bootstrap_servers, case.kind) as topic:
        oracle = fill_with(kafka.bootstrap_servers, topic, case.kind, made, 3)
        result = run_cli(*transfer_arguments(kafka, topic, directory / "alerts", "-partitionby", "time"))
        assert result.returncode == 0, result.stderr
    alerts = [oracle.alert(place) for place in oracle.values]
    # One that was seen several times, and has no null where a light curve should have a number.
    names = [_at(alert, case.names.object_id) for alert in alerts if _at(alert, case.names.value) is not None]
    seen = Counter(name for name in names if name)  # what moves has 0
    target, day = seen.most_common(1)[0][0], 25
    return Dataset(case, directory / "alerts", target, day, _expected(alerts, case.names, target, day))


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _class_counts(pairs: Iterable[tuple[Any, int]]) -> list[tuple[str, int]]:
    return sorted(
        (str(None if label is None or label is pd.NA or label != label else label), int(count))
        for label, count in pairs
    )


def _of_series(frame: pd.DataFrame, path: str) -> pd.Series:
    column, *fields = path.split(".")
    series = frame[column]
    for field in fields:
        series = series.struct.field(field)
    return series


def _found_in_pandas(frame: pd.DataFrame, data: Dataset, lengths: Callable[[pd.Series], list[int]]) -> Found:
    names = data.case.names
    flat = pd.DataFrame(
        {
            name: _of_series(frame, path)
            for name, path in asdict(names).items()
            if path is not None and name != "history"
        }
    )
    curve = flat[flat["object_id"] == data.target].sort_values("time")
    counts = flat[frame["day"].astype(int) == data.day].groupby("label", dropna=False).size()
    return Found(
        len(frame),
        sorted(map(int, flat["source_id"])),
        _class_counts(counts.items()),
        [tuple(row) for row in curve[["source_id", "time", "value"]].itertuples(index=False)],
        lengths(frame.loc[curve.index, names.history]) if names.history else [],
        _base64(curve["cutout"].iloc[0]) if names.cutout else None,
    )


def _list_lengths(series: pd.Series) -> list[int]:
    return [0 if count is pd.NA else int(count) for count in series.list.len()]


def _with_pandas(data: Dataset) -> Found:
    frame = pd.read_parquet(data.path, dtype_backend="pyarrow", partitioning=HIVE)
    return _found_in_pandas(frame, data, _list_lengths)


def _with_dask(data: Dataset) -> Found:
    with dask.config.set(scheduler="threads"):
        frame = dd.read_parquet(data.path, dtype_backend="pyarrow")
        assert len(frame) == data.expected.count
        return _found_in_pandas(frame.compute().reset_index(drop=True), data, _list_lengths)


def _with_nested_pandas(data: Dataset) -> Found:
    frame = npd.read_parquet(data.path, partitioning=HIVE)
    return _found_in_pandas(
        frame, data, lambda series: [len(one) if one is not None and one is not pd.NA else 0 for one in series]
    )


def _of_table(table: pa.Table, data: Dataset) -> Found:
    names = data.case.names
    rows = [row for row in table.to_pylist() if row["object_id"] == data.target]
    rows.sort(key=lambda row: row["time"])
    days = table.filter(pa.compute.equal(table["day"], data.day))
    counts = days.group_by("label").aggregate([([], "count_all")])
    return Found(
        table.num_rows,
        sorted(table["source_id"].to_pylist()),
        _class_counts(zip(counts["label"].to_pylist(), counts["count_all"].to_pylist(), strict=True)),
        [(row["source_id"], row["time"], row["value"]) for row in rows],
        [len(row["history"] or []) for row in rows] if names.history else [],
        _base64(rows[0]["cutout"]) if names.cutout else None,
    )


def _columns(names: Names) -> dict[str, Any]:
    fields = {name: ds.field(*path.split(".")) for name, path in asdict(names).items() if path is not None}
    return {**fields, "day": ds.field("day")}


def _with_pyarrow(data: Dataset) -> Found:
    opened = ds.dataset(data.path, partitioning="hive")
    return _of_table(opened.to_table(columns=_columns(data.case.names)), data)


def _with_fink_dask(data: Dataset) -> Found:
    opened = fink_dask.open_dataset(data.path)
    assert opened.count_rows(filter=ds.field("day") == data.day) == sum(count for _, count in data.expected.classes)
    return _of_table(opened.to_table(columns=_columns(data.case.names)), data)


def _with_polars(data: Dataset) -> Found:
    def column(path: str) -> pl.Expr:
        first, *fields = path.split(".")
        expression = pl.col(first)
        for field in fields:
            expression = expression.struct.field(field)
        return expression

    names = {name: path for name, path in asdict(data.case.names).items() if path is not None}
    alerts = pl.scan_parquet(data.path).select("day", **{name: column(path) for name, path in names.items()})
    curve = alerts.filter(pl.col("object_id") == data.target).sort("time").collect()
    counts = alerts.filter(pl.col("day") == data.day).group_by("label").len().collect()
    return Found(
        alerts.select(pl.len()).collect().item(),
        alerts.select("source_id").collect()["source_id"].sort().to_list(),
        _class_counts(counts.iter_rows()),
        list(curve.select("source_id", "time", "value").iter_rows()),
        curve["history"].list.len().fill_null(0).to_list() if "history" in names else [],
        _base64(curve["cutout"][0]) if "cutout" in names else None,
    )


def _with_duckdb(data: Dataset) -> Found:
    names = data.case.names
    length = f"len({names.history})" if names.history else "NULL"
    source = f"read_parquet('{data.path}/**/*.parquet', hive_partitioning = true)"
    with duckdb.connect() as connection:
        ((count,),) = connection.sql(f"SELECT count(*) FROM {source}").fetchall()
        ids = connection.sql(f"SELECT {names.source_id} FROM {source} ORDER BY 1").fetchall()
        counts = connection.sql(
            f"SELECT {names.label}, count(*) FROM {source} WHERE day = {data.day} GROUP BY 1"
        ).fetchall()
        curve = connection.execute(
            f"SELECT {names.source_id}, {names.time}, {names.value}, {length}, {names.cutout or 'NULL'} "
            f"FROM {source} WHERE {names.object_id} = ? ORDER BY {names.time}",
            [data.target],
        ).fetchall()
    return Found(
        count,
        [one for (one,) in ids],
        _class_counts(counts),
        [row[:3] for row in curve],
        [row[3] or 0 for row in curve] if names.history else [],
        _base64(curve[0][4]),
    )


READERS = {
    "pandas": _with_pandas,
    "polars": _with_polars,
    "duckdb": _with_duckdb,
    "pyarrow": _with_pyarrow,
    "fink_dask": _with_fink_dask,
    "nested-pandas": _with_nested_pandas,
    "dask": _with_dask,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_reader_finds_what_was_published(dataset: Dataset, reader: Callable[[Dataset], Found]) -> None:
    found = reader(dataset)
    assert found == dataset.expected
    assert len(found.curve) > 1
    assert len(found.classes) > 1
    assert all(type(number) is int and number > 2**53 for number in found.ids)


@pytest.fixture(scope="module")
def spark() -> str:
    """Make an environment with Spark, once: it is larger than all others together."""
    return python_of(spark_environment())


@pytest.mark.timeout(1500)
def test_spark_finds_what_was_published(datasets: dict[AlertKind, Dataset], spark: str) -> None:
    asked = [
        {**asdict(data.case.names), "path": str(data.path), "target": data.target, "day": data.day}
        for data in datasets.values()
    ]
    ended = subprocess.run(
        [spark, str(SPARK_JOB)], input=json.dumps(asked), capture_output=True, text=True, timeout=900, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads(ended.stdout.splitlines()[-1])
    found = [
        Found(
            one["count"],
            one["ids"],
            _class_counts(one["classes"]),
            [tuple(row) for row in one["curve"]],
            one["history"],
            one["cutout"],
        )
        for one in said
    ]
    assert found == [data.expected for data in datasets.values()]


@pytest.fixture(scope="module")
def classes(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int]]]:
    """Transfer a topic into directories of a boolean and of a class, either of which may be null."""
    path, alerts = tmp_path_factory.mktemp("classes") / "alerts", list(made_up_alerts(AlertKind.ZTF_LIGHT, 300))
    for each, name in enumerate(["is_transient", "finkclass"]):
        for alert in alerts[each :: 7 + each]:
            alert[name] = None
    with own_topic(kafka.bootstrap_servers) as topic:
        fill_with(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, alerts, 2)
        result = run_cli(*transfer_arguments(kafka, topic, path, "-partitionby", "is_transient,finkclass"))
        assert result.returncode == 0, result.stderr
    counts = Counter(f"{alert['is_transient']} {alert['finkclass']}" for alert in alerts)
    return path, sorted(counts.items())


def _pairs(rows: Iterable[tuple[Any, Any, int]]) -> list[tuple[str, int]]:
    def text(value: Any) -> str:
        return "None" if value is None or value is pd.NA else str(value)

    return sorted((f"{text(flag)} {text(label)}", int(count)) for flag, label, count in rows)


def test_readers_of_an_opened_dataset_count_booleans_and_classes_that_may_be_null(
    classes: tuple[Path, list[tuple[str, int]]],
) -> None:
    path, expected = classes
    alerts = fink_dask.open_dataset(path)
    keys = ["is_transient", "finkclass"]
    assert alerts.schema.field("is_transient").type == pa.bool_()
    frame = alerts.to_table(columns=[*keys]).to_pandas(types_mapper=pd.ArrowDtype)
    assert _pairs((*key, count) for key, count in frame.groupby(keys, dropna=False).size().items()) == expected
    polars = pl.scan_pyarrow_dataset(alerts).group_by(keys).len().collect()
    assert _pairs(polars.iter_rows()) == expected
    with duckdb.connect() as connection:
        connection.register("alerts", alerts)
        rows = connection.sql("SELECT is_transient, finkclass, count(*) FROM alerts GROUP BY ALL").fetchall()
    assert _pairs(rows) == expected


def test_readers_that_guess_find_nulls_where_the_documentation_says_so(
    classes: tuple[Path, list[tuple[str, int]]],
) -> None:
    path, expected = classes
    as_text = [(label.replace("True", "true").replace("False", "false"), count) for label, count in expected]
    keys = ["is_transient", "finkclass"]
    arrow = ds.dataset(path, partitioning="hive").to_table(columns=keys).group_by(keys).aggregate([([], "count_all")])
    assert _pairs(zip(*(arrow[name].to_pylist() for name in (*keys, "count_all")), strict=True)) == sorted(as_text)
    for frame in (
        pd.read_parquet(path, columns=keys, partitioning=HIVE, dtype_backend="pyarrow"),
        npd.read_parquet(path, columns=keys, partitioning=HIVE),
    ):
        counts = frame.groupby(keys, dropna=False).size()
        assert _pairs((*key, count) for key, count in counts.items()) == sorted(as_text)
    polars = pl.scan_parquet(path).group_by(keys).len().collect()
    assert _pairs(polars.iter_rows()) == expected
    with duckdb.connect() as connection:
        source = f"read_parquet('{path}/**/*.parquet', hive_partitioning = true)"
        rows = connection.sql(f"SELECT is_transient, finkclass, count(*) FROM {source} GROUP BY ALL").fetchall()
    assert _pairs(rows) == sorted(as_text)


def test_pandas_compares_and_sorts_partition_columns_with_what_the_documentation_gives_it(dataset: Dataset) -> None:
    keys = ["year", "month", "day"]
    days = pd.read_parquet(dataset.path, columns=keys, partitioning=HIVE, dtype_backend="pyarrow")
    assert days["day"].max() >= dataset.day
    assert len(days[days["day"] >= dataset.day]) >= sum(count for _, count in dataset.expected.classes)
    assert days.sort_values(keys)[keys].apply(tuple, axis=1).is_monotonic_increasing
    # And without it, what the page says of it.
    categories = pd.read_parquet(dataset.path, columns=keys)
    assert isinstance(categories["day"].dtype, pd.CategoricalDtype)
    with pytest.raises(TypeError):
        categories["day"].max()
    assert categories["day"].astype("int32").max() == days["day"].max()
    dictionaries = pd.read_parquet(dataset.path, columns=keys, dtype_backend="pyarrow")
    with pytest.raises((TypeError, pa.ArrowException)):
        dictionaries.sort_values("day")


def test_the_example_shows_a_cutout_as_it_was_sent(dataset: Dataset) -> None:
    command = [sys.executable, str(ROOT / "examples" / "show_cutout.py"), str(dataset.path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if dataset.case.names.cutout is None:
        assert (ended.returncode, ended.stdout) == (1, "")
        (line,) = ended.stderr.splitlines()
        assert "cutouts" in line
        return
    assert ended.returncode == 0, ended.stderr
    title, *lines = ended.stdout.splitlines()
    assert title.endswith("21 x 21 pixels")
    # The star is in the middle.
    assert (len(lines), {len(line) for line in lines}) == (21, {42})
    assert (lines[10][20], lines[0][0]) == ("@", " ")
