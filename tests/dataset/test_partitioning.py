"""An alert is in the directory of its own night and class, and every reader finds the value there again."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.dataset.partitioning import (
    MAX_KEY_LENGTH,
    NULL_KEY,
    Partitioning,
    column_of,
    hive_level,
    resolve_partitioning,
)
from fink_dask.errors import SettingsError

NULL_DAY = f"year={NULL_KEY}/month={NULL_KEY}/day={NULL_KEY}"
S = 1 / 86400
#: Offsets of TAI from UTC, https://hpiers.obspm.fr/eop-pc/index.php?index=TAI-UTC_tab
TAI_2026, TAI_1999, TAI_2016 = 37 * S, 32 * S, 36 * S
MS = 1e-3 * S


def keys_of(partitioning: Partitioning, batch: pa.RecordBatch) -> list[str | None]:
    """Name the directory of each row, None where it is refused."""
    split = partitioning.split(batch)
    assert sorted(split.order) == list(range(batch.num_rows)), "a row has no place, or two"
    found: dict[int, str | None] = {}
    for name, count in [*split.parts, (None, len(split.refused))]:
        rows = split.order[len(found) : len(found) + count].tolist()
        assert rows == sorted(rows), "rows change their order"
        found |= dict.fromkeys(rows, name)
    return [found[row] for row in range(batch.num_rows)]


def column_keys(name: str, values: pa.Array) -> list[str | None]:
    batch = pa.RecordBatch.from_arrays([values], names=[name])
    return keys_of(resolve_partitioning((name,), None, batch.schema), batch)


def time_keys(survey: str, times: list[float | None]) -> list[str | None]:
    name = "jd" if survey == "ztf" else "midpointMjdTai"
    batch = pa.RecordBatch.from_arrays([pa.array(times, pa.float64())], names=[name])
    return keys_of(resolve_partitioning(("time",), survey, batch.schema), batch)


TIMES = [
    ("ztf", 2461095.5, "2026-02-24"),
    ("ztf", 2461095.5 - 0.1 * MS, "2026-02-23"),
    ("ztf", 2461096.4999, "2026-02-24"),
    ("ztf", 2440587.5, "1970-01-01"),
    ("ztf", 2440587.5 - 0.1 * MS, "1969-12-31"),
    ("ztf", 1721425.5, "0001-01-01"),
    ("ztf", 1721425.0, None),
    ("ztf", 5373484.4, "9999-12-31"),
    ("ztf", 5373484.5, None),
    ("ztf", -1.0, None),
    ("ztf", 0.0, None),
    ("ztf", 1e300, None),
    ("ztf", float("inf"), None),
    ("ztf", -float("inf"), None),
    ("ztf", float("nan"), None),
    ("ztf", None, None),
    ("lsst", 61095 + TAI_2026 + MS, "2026-02-24"),
    ("lsst", 61095 + TAI_2026 - MS, "2026-02-23"),
    ("lsst", 51179 + TAI_1999 + MS, "1999-01-01"),
    ("lsst", 51179 + TAI_1999 - MS, "1998-12-31"),
    # 2016-12-31 has a second 60, which belongs to it; the offset is 36 s before and 37 s after it.
    ("lsst", 57754 + TAI_2016 + 0.5 * S, "2016-12-31"),
    ("lsst", 57754 + TAI_2016 + S - MS, "2016-12-31"),
    ("lsst", 57754 + TAI_2016 + S + MS, "2017-01-01"),
    ("lsst", 36204.5, "1958-01-01"),
    ("lsst", 36203.9, None),
    ("lsst", 0.0, None),
    ("lsst", -1.0, None),
    ("lsst", 1e300, None),
    ("lsst", float("inf"), None),
    ("lsst", float("nan"), None),
    ("lsst", None, None),
]


def _day(expected: str | None) -> str:
    if expected is None:
        return NULL_DAY
    return "/".join(f"{name}={part}" for name, part in zip(("year", "month", "day"), expected.split("-"), strict=True))


@pytest.mark.parametrize(("survey", "time", "expected"), TIMES)
def test_an_alert_is_in_the_directory_of_its_night(survey: str, time: float | None, expected: str | None) -> None:
    assert time_keys(survey, [time]) == [_day(expected)]


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_a_time_that_is_none_does_not_spoil_its_neighbours(survey: str) -> None:
    cases = [(time, expected) for of, time, expected in TIMES if of == survey]
    assert time_keys(survey, [time for time, _ in cases]) == [_day(expected) for _, expected in cases]


STRINGS = [
    "../../x",
    "a/b",
    "/etc",
    "=",
    "a=b",
    "\0",
    "a\0b",
    "%",
    "%2F",
    "with spaces ",
    "été☃😀",
    ".",
    "..",
    "007",
    "nan",
    "null",
    "\n",
    "\\",
    "SN Ia",
    "x" * 100,
]
READERS = ["pyarrow", "pandas", "polars"]


def _read(root: Path, reader: str, column: str = "k", kind: pa.DataType | None = None) -> list[Any]:
    hive = ds.partitioning(pa.schema([(column, kind or pa.string())]), flavor="hive")
    if reader == "pyarrow":
        found = ds.dataset(root, partitioning=hive).to_table().sort_by("row")[column].to_pylist()
    elif reader == "pandas":
        frame = pd.read_parquet(root, partitioning=hive).sort_values("row")
        found = [None if pd.isna(value) else value for value in frame[column]]
    else:
        schema = {column: pl.String if kind is None else pl.Int64}
        frame = pl.scan_parquet(root, hive_partitioning=True, hive_schema=schema).collect()
        found = frame.sort("row")[column].to_list()
    return found


def _write(root: Path, keys: list[str | None]) -> None:
    for row, key in enumerate(keys):
        assert key is not None
        (root / key).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"row": [row]}), root / key / f"{row}.parquet")


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_finds_every_value_again_and_nothing_is_outside_the_dataset(tmp_path: Path, reader: str) -> None:
    root = tmp_path / "deep" / "dataset"
    keys = column_keys("k", pa.array(STRINGS))
    assert all(key is not None and key.count("/") == 0 and key.isascii() and key.isprintable() for key in keys)
    _write(root, keys)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert _read(root, reader) == STRINGS


@pytest.mark.parametrize("reader", READERS)
def test_null_is_null_to_a_reader(tmp_path: Path, reader: str) -> None:
    keys = column_keys("k", pa.array(["a", None]))
    assert keys == ["k=a", f"k={NULL_KEY}"]
    _write(tmp_path, keys)
    assert _read(tmp_path, reader) == ["a", None]


REFUSED = [
    ("x" * 10_000, "180"),
    ("é" * 40, "180"),
    (NULL_KEY, NULL_KEY),
    ("", "empty"),
]


def test_an_empty_string_that_the_files_have_goes_where_null_goes() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["", None])], names=["k"])
    assert resolve_partitioning(("k",), None, batch.schema).split(batch, is_whole=True).parts == [(f"k={NULL_KEY}", 2)]
    inner = pa.RecordBatch.from_arrays([pa.array([{"k": ""}, None])], names=["s"])
    assert resolve_partitioning(("s.k",), None, inner.schema).split(inner).parts == [(f"s_k={NULL_KEY}", 2)]


def test_a_date_that_no_reader_has_is_refused() -> None:
    days = pa.array([0, 2932897, None, -719163], pa.int32()).cast(pa.date32())
    batch = pa.RecordBatch.from_arrays([days], names=["k"])
    split = resolve_partitioning(("k",), None, batch.schema).split(batch)
    assert split.parts == [("k=1970-01-01", 1), (f"k={NULL_KEY}", 1)]
    assert len(split.refused) == 2
    assert all("9999" in reason for reason in split.refused)


def test_nan_is_nan_to_a_reader_and_not_null(tmp_path: Path) -> None:
    _write(tmp_path, column_keys("k", pa.array([1.5, float("nan"), None])))
    found = _read(tmp_path, "pyarrow", kind=pa.float64())
    assert (found[0], found[1] != found[1], found[2]) == (1.5, True, None)


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda value: value[:20])
def test_a_value_that_no_directory_can_say_is_refused_alone_and_with_a_reason(value: str, reason: str) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([value, "a", value, "b"])], names=["k"])
    split = resolve_partitioning(("k",), None, batch.schema).split(batch)
    assert split.parts == [("k=a", 1), ("k=b", 1)]
    assert split.order.tolist() == [1, 3, 0, 2]
    assert len(split.refused) == 2
    assert all(reason in words and len(words) < 200 for words in split.refused)


def test_a_name_of_a_directory_has_at_most_255_bytes() -> None:
    fits = "x" * (MAX_KEY_LENGTH - len("k="))
    assert column_keys("k", pa.array([fits, fits + "x"])) == [f"k={fits}", None]


COLUMNS: list[tuple[pa.Array, list[str]]] = [
    (pa.array([1, -1, None, 2**63 - 1]), ["1", "-1", NULL_KEY, "9223372036854775807"]),
    (pa.array([True, False, None]), ["true", "false", NULL_KEY]),
    (pa.array([1.5, float("nan"), None, float("inf"), -0.0]), ["1.5", "NaN", NULL_KEY, "inf", "-0.0"]),
    (pa.array([1.5, float("nan")], pa.float32()), ["1.5", "NaN"]),
    (pa.array([date(2026, 2, 4), None]), ["2026-02-04", NULL_KEY]),
    (
        pa.array([0, -719162, 2932896], pa.int32()).cast(pa.date32()),
        ["1970-01-01", "0001-01-01", "9999-12-31"],
    ),
    (pa.array([], pa.string()), []),
    (pa.array([None, None], pa.string()), [NULL_KEY, NULL_KEY]),
]


@pytest.mark.parametrize(("values", "expected"), COLUMNS, ids=lambda value: str(getattr(value, "type", ""))[:20])
def test_a_value_of_any_type_has_a_directory(values: pa.Array, expected: list[str]) -> None:
    keys = column_keys("k", values)
    assert [key and key.replace("%2D", "-") for key in keys] == [f"k={text}" for text in expected]


@pytest.mark.parametrize("reader", READERS)
def test_an_integer_is_an_integer_again(tmp_path: Path, reader: str) -> None:
    _write(tmp_path, column_keys("k", pa.array([1, -7, 2**53])))
    assert _read(tmp_path, reader, kind=pa.int64()) == [1, -7, 2**53]


def test_several_columns_make_nested_directories_in_the_order_asked_for() -> None:
    batch = pa.RecordBatch.from_pydict({"a": ["x", "y", "x", None], "b": [1, 1, 2, 1], "jd": [2461095.5] * 4})
    partitioning = resolve_partitioning(("b", "time", "a"), "ztf", batch.schema)
    day = "year=2026/month=02/day=24"
    assert partitioning.columns == ("b", "year", "month", "day", "a")
    assert keys_of(partitioning, batch) == [
        f"b=1/{day}/a=x",
        f"b=1/{day}/a=y",
        f"b=2/{day}/a=x",
        f"b=1/{day}/a={NULL_KEY}",
    ]


def test_a_reason_names_the_column_that_is_too_long() -> None:
    batch = pa.RecordBatch.from_pydict({"a": ["x"], "b": ["y" * 500]})
    (reason,) = resolve_partitioning(("a", "b"), None, batch.schema).split(batch).refused
    assert "b=yyy" in reason


STRUCT = pa.array([{"rb": 1, "jd": 2461095.5}, None, {"rb": None, "jd": None}])
FULL = pa.RecordBatch.from_arrays([STRUCT, pa.array([1, 2, 3]), pa.array([7] * 3)], names=["candidate", "year", "x"])


def test_a_field_of_a_missing_record_is_null() -> None:
    assert keys_of(resolve_partitioning(("candidate.rb",), None, FULL.schema), FULL) == [
        "candidate_rb=1",
        f"candidate_rb={NULL_KEY}",
        f"candidate_rb={NULL_KEY}",
    ]
    sliced = FULL.slice(1, 2)
    assert (
        keys_of(resolve_partitioning(("candidate.rb",), None, FULL.schema), sliced) == [f"candidate_rb={NULL_KEY}"] * 2
    )


def test_the_directories_replace_columns_of_their_names() -> None:
    partitioning = resolve_partitioning(("time",), "ztf", FULL.schema)
    assert keys_of(partitioning, FULL) == ["year=2026/month=02/day=24", NULL_DAY, NULL_DAY]
    assert partitioning.file_schema(FULL.schema).names == ["candidate", "x"]
    nested = resolve_partitioning(("candidate.rb",), None, FULL.schema)
    assert nested.file_schema(FULL.schema).names == ["candidate", "year", "x"]


def test_without_partition_columns_all_is_in_the_dataset_itself() -> None:
    partitioning = resolve_partitioning((), None, FULL.schema)
    assert keys_of(partitioning, FULL) == ["", "", ""]
    assert partitioning.file_schema(FULL.schema) == FULL.schema


WRONG: list[tuple[tuple[str, ...], str | None, str]] = [
    (("nothing",), None, "candidate_rb, k"),
    (("rb",), None, "rb.*candidate.rb"),
    (("tim",), None, r"\btim\b.*\btime\b"),
    (("candidate.nothing",), None, "candidate.nothing"),
    (("candidate",), None, "struct"),
    (("list",), None, "list.*a list"),
    (("",), None, "candidate_rb, k"),
    (("time",), None, "--survey"),
    (("time",), "lsst", "diaSource.midpointMjdTai"),
    (("k", "k"), None, r"two .*\bk\b"),
    (("time", "year"), "ztf", "two .*year"),
    (("candidate.rb",), None, "two .*candidate_rb"),
    (("k" * 200,), None, r"k{40}\.\.\."),
]


@pytest.mark.parametrize(("names", "survey", "words"), WRONG)
def test_what_cannot_be_partition_columns_is_refused_in_one_line(
    names: tuple[str, ...], survey: str | None, words: str
) -> None:
    schema = pa.schema(
        [
            ("candidate", STRUCT.type),
            ("candidate_rb", pa.int64()),
            ("list", pa.list_(pa.int64())),
            ("k", pa.string()),
            ("year", pa.int64()),
            ("k" * 200, pa.string()),
        ]
    )
    with pytest.raises(SettingsError, match=words) as caught:
        resolve_partitioning(names, survey, schema)
    assert "\n" not in str(caught.value)


def test_a_field_that_a_struct_lacks_is_not_another_one() -> None:
    batch = pa.record_batch({"a": pa.array([{"b": 1, "c": 2}])})
    assert column_of(batch, "a.b").to_pylist() == [1]
    with pytest.raises(KeyError):
        column_of(batch, "a.d")


def test_a_column_of_as_many_values_as_rows_is_split_at_once() -> None:
    count = 50_000
    keys = column_keys("k", pa.array([f"ZTF{row}" for row in range(count)]))
    assert keys == [f"k=ZTF{row}" for row in range(count)]


def test_names_of_columns_are_encoded_as_well() -> None:
    assert hive_level("a/../b", "c") == "a%2F..%2Fb=c"
    assert keys_of(resolve_partitioning((), None, FULL.schema), FULL) == [""] * 3
