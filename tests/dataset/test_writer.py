"""The files of a range are the same whoever writes them, say where they come from, and cost bounded memory."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import duckdb
import nested_pandas as npd
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.dataset import formats as parquet_file
from fink_dask.dataset.formats import KAFKA_FIELDS, Origin
from fink_dask.dataset.writer import MAX_KEYS, StagedWriter
from fink_dask.errors import SettingsError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.records import DataFile
from tests.harness.crash import run
from tests.harness.descriptors import open_below
from tests.harness.ledgers import begin_attempt

RANGE = OffsetRange(2, 100, 200)
ORIGIN = Origin("topic", "id", RANGE, "0123abcd")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("flux", pa.float32()),
        pa.field("stamp", pa.struct([pa.field("name", pa.string()), pa.field("data", pa.binary(), nullable=False)])),
        pa.field("history", pa.list_(pa.struct([pa.field("mag", pa.float64()), pa.field("band", pa.string())]))),
        pa.field("extra", pa.map_(pa.string(), pa.int32())),
        pa.field("when", pa.timestamp("us", tz="UTC")),
        pa.field("price", pa.decimal128(20, 4)),
        pa.field("nothing", pa.null()),
        *KAFKA_FIELDS,
    ]
)


def finish(writer: StagedWriter) -> tuple[DataFile, ...]:
    writer.complete()
    return writer.stage()


def make_batch(start: int, rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(start)
    columns: dict[str, list[Any]] = {
        "id": [f"ZTF{start + row}" for row in range(rows)],
        "flux": [None if row % 5 == 0 else float(np.float32(random.normal())) for row in range(rows)],
        "stamp": [None if row % 3 == 0 else {"name": None, "data": random.bytes(50)} for row in range(rows)],
        "history": [[None, {"mag": 1.0, "band": "g"}][: row % 3] if row % 4 else None for row in range(rows)],
        "extra": [[("a", row), ("b", None)] if row % 2 else None for row in range(rows)],
        "when": [row if row % 2 else None for row in range(rows)],
        "price": [None] * rows,
        "nothing": [None] * rows,
        "kafka_partition": [RANGE.partition] * rows,
        "kafka_offset": list(range(start, start + rows)),
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


BATCHES = [make_batch(100 + 10 * index, 10) for index in range(10)]


def write_all(attempt: Attempt, **options: Any) -> tuple[DataFile, ...]:
    with StagedWriter(attempt, SCHEMA, ORIGIN, **options) as writer:
        for index, batch in enumerate(BATCHES):
            for key in range(2 + index % 2):
                rows = pa.array(range(key, batch.num_rows, 2 + index % 2))
                writer.write(f"key={key}", batch.take(rows))
        return finish(writer)


def paths_of(attempt: Attempt, files: tuple[DataFile, ...]) -> list[Path]:
    return [attempt.directory / file.staged for file in files]


@pytest.mark.parametrize("buffer_bytes", [1, 3000, 2**30])
def test_two_attempts_write_the_same_bytes(tmp_path: Path, buffer_bytes: int) -> None:
    attempts = [begin_attempt(tmp_path / "alerts", ORIGIN) for _ in range(2)]
    files = [write_all(attempt, buffer_bytes=buffer_bytes) for attempt in attempts]
    assert files[0] == files[1]
    first, second = ([path.read_bytes() for path in paths_of(a, f)] for a, f in zip(attempts, files, strict=True))
    assert first == second


@pytest.mark.parametrize("buffer_bytes", [1, 3000, 2**30])
def test_what_was_written_is_read_again_with_one_schema_in_all_files(tmp_path: Path, buffer_bytes: int) -> None:
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    files = write_all(attempt, buffer_bytes=buffer_bytes)
    tables = [pq.ParquetFile(path).read() for path in paths_of(attempt, files)]
    assert [file.path for file in files] == [f"key={key}/{ORIGIN.stem}.parquet" for key in range(3)]
    assert [file.rows for file in files] == [table.num_rows for table in tables]
    assert all(pq.read_schema(path).equals(SCHEMA) for path in paths_of(attempt, files))
    together = pa.concat_tables(tables).sort_by("kafka_offset")
    assert together.to_pylist() == pa.Table.from_batches(BATCHES).to_pylist()


def test_rows_are_held_back_up_to_a_bound_only(tmp_path: Path) -> None:
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    batches = [make_batch(100 + 2000 * index, 2000) for index in range(10)]
    groups = {}
    for bound in (batches[0].nbytes, 3 * batches[0].nbytes, 2**30):
        with StagedWriter(attempt, SCHEMA, ORIGIN, prefix=f"{bound}-", buffer_bytes=bound) as writer:
            for batch in batches:
                writer.write("", batch)
                assert writer._waiting_bytes < bound
            (path,) = paths_of(attempt, finish(writer))
        groups[bound] = pq.read_metadata(path).num_row_groups
        assert pq.ParquetFile(path).read().equals(pa.Table.from_batches(batches))
    few, some, one = groups.values()
    assert few > some > one == 1


def test_what_files_say_of_their_row_groups_is_part_of_what_is_held_in_memory(tmp_path: Path) -> None:
    schema = pa.schema([*(pa.field(f"column_{index}", pa.float64()) for index in range(300)), *KAFKA_FIELDS])
    numbers = [np.random.default_rng(index).random(1000) for index in range(300)]
    bound = 2**21
    with StagedWriter(begin_attempt(tmp_path / "alerts", ORIGIN), schema, ORIGIN, buffer_bytes=bound) as writer:
        for index in range(40):
            places = [np.full(1000, 2, np.int32), np.arange(1000) + 1000 * index]
            writer.write(f"key={index % 3}", pa.RecordBatch.from_arrays([*numbers, *places], schema=schema))
            assert writer._waiting_bytes < bound
        files = finish(writer)
    found = [pq.read_metadata(writer._attempt.scratch / file.staged) for file in files]
    assert [each.num_rows for each in found] == [14_000, 13_000, 13_000]
    # Of 96 MB, row groups of at most 2 MB would be 46.
    assert sum(each.num_row_groups for each in found) < 12


def _write_one_by_one(attempt: Attempt, rows: int, keys: int, buffer_bytes: int) -> tuple[int, tuple[DataFile, ...]]:
    """Write alerts of 50 columns as batches of one; return how much more memory that took."""
    schema = pa.schema([*(pa.field(f"column_{index}", pa.string()) for index in range(50)), *KAFKA_FIELDS])
    values = [[f"{index}"] for index in range(50)]
    memory, before, peak = psutil.Process().memory_info, psutil.Process().memory_info().rss, 0
    with StagedWriter(attempt, schema, ORIGIN, buffer_bytes=buffer_bytes) as writer:
        for row in range(rows):
            batch = pa.RecordBatch.from_arrays([*values, [2], [row]], schema=schema)
            writer.write(f"key={row % keys}", batch)
            if row % 500 == 0:
                peak = max(peak, memory().rss)
        return peak - before, finish(writer)


def _assert_bounded(tmp_path: Path, keys: int) -> None:
    grown, files = _write_one_by_one(begin_attempt(tmp_path / "alerts", ORIGIN), 6_000, keys, buffer_bytes=32 * 2**20)
    assert sum(file.rows for file in files) == 6_000
    assert grown < 110 * 2**20, f"{grown:,} bytes; some 220 million are 6,000 batches"


@pytest.mark.parametrize("keys", [pytest.param(1, marks=pytest.mark.faults), 100])
def test_alerts_that_come_one_by_one_take_bounded_memory(tmp_path: Path, keys: int) -> None:
    assert run(_assert_bounded, tmp_path, keys) == 0, "see what the process has printed"


def test_two_attempts_write_the_same_bytes_of_alerts_that_come_one_by_one(tmp_path: Path) -> None:
    (_, first), (_, second) = (
        _write_one_by_one(begin_attempt(tmp_path / "alerts", ORIGIN), 500, 7, 2**20) for _ in range(2)
    )
    assert first == second


def test_many_keys_do_not_make_row_groups_of_a_few_alerts_whose_footers_fill_the_memory(tmp_path: Path) -> None:
    keys, batches = 40, [make_batch(100 + 80 * index, 80) for index in range(20)]
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    with StagedWriter(attempt, SCHEMA, ORIGIN, buffer_bytes=3 * batches[0].nbytes) as writer:
        for index, batch in enumerate(batches):
            for key in range(keys):
                writer.write(f"key={key}", batch.slice(2 * key, 2))
            if index % 7 == 0:  # one that has enough for a row group by itself, beside what was put aside
                writer.write("key=0", batches[0])
        files = finish(writer)
    assert sorted(path.name for path in attempt.scratch.iterdir()) == sorted(file.staged for file in files)
    for key, file in enumerate(files):
        found = pq.ParquetFile(attempt.scratch / file.staged)
        parts = [(batch.slice(2 * key, 2), index) for index, batch in enumerate(batches)]
        wanted = [part for part, index in parts for part in (part, *([batches[0]] if key == 0 == index % 7 else []))]
        assert found.read().cast(SCHEMA).equals(pa.Table.from_batches(wanted))
        assert found.num_row_groups <= 4


def test_a_file_proves_where_it_comes_from(tmp_path: Path) -> None:
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    for path in paths_of(attempt, write_all(attempt)):
        footer = pq.read_metadata(path).metadata
        assert {key: footer[f"fink_dask.{key}".encode()] for key in ORIGIN_FOOTER} == ORIGIN_FOOTER


ORIGIN_FOOTER = {
    "topic": b"topic",
    "topic_id": b"id",
    "partition": b"2",
    "start": b"100",
    "end": b"200",
    "plan": b"0123abcd",
}


def test_more_keys_than_files_are_sensible_is_refused_in_words(tmp_path: Path) -> None:
    row = BATCHES[0].slice(0, 1)
    with StagedWriter(begin_attempt(tmp_path / "alerts", ORIGIN), SCHEMA, ORIGIN) as writer:
        for key in range(MAX_KEYS):
            writer.write(f"key={key}", row)
        writer.write("key=0", row)
        with pytest.raises(SettingsError, match="more than 1,000 partition keys") as caught:
            writer.write("key=x", row)
    assert (caught.value.topic, caught.value.partition) == ("topic", 2)


def test_as_many_keys_as_allowed_do_not_run_out_of_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    schema = pa.schema(KAFKA_FIELDS)
    row = pa.RecordBatch.from_pydict({"kafka_partition": [2], "kafka_offset": [100]}, schema=schema)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with StagedWriter(begin_attempt(tmp_path / "alerts", ORIGIN), schema, ORIGIN, buffer_bytes=1) as writer:
            for key in range(MAX_KEYS):
                writer.write(f"key={key}", row)
            assert len(finish(writer)) == MAX_KEYS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Writer(pq.ParquetWriter):  # type: ignore[misc]
    def close(self) -> None:
        if self.is_open:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("full", [False, True])
def test_an_attempt_that_fails_leaves_no_file_open_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    if full:
        monkeypatch.setattr(parquet_file.pq, "ParquetWriter", _Writer)
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)

    def fail() -> None:
        batch = make_batch(100, 5000)
        with StagedWriter(attempt, SCHEMA, ORIGIN, buffer_bytes=batch.nbytes) as writer:
            for key in range(3):
                writer.write(f"key={key}", batch)
            assert len(open_below(tmp_path)) == 3
            raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"):
        fail()
    assert not open_below(tmp_path)


def test_bytes_that_go_bad_before_they_are_staged_are_not_taken_for_what_was_written(tmp_path: Path) -> None:
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    with StagedWriter(attempt, SCHEMA, ORIGIN) as writer:
        writer.write("", BATCHES[0])
        writer.complete()
        (path,) = attempt.scratch.iterdir()
        good = path.read_bytes()
        path.write_bytes(bytes([good[0], good[1] ^ 1]) + good[2:])
        (file,) = writer.stage()
    assert (file.size, file.sha256) == (len(good), hashlib.sha256(good).hexdigest())


def test_a_range_without_alerts_has_no_files(tmp_path: Path) -> None:
    with StagedWriter(begin_attempt(tmp_path / "alerts", ORIGIN), SCHEMA, ORIGIN) as writer:
        assert finish(writer) == ()


@pytest.mark.parametrize("name", ["a [b]*?", "été☃", "s3:x", "100%25"])
def test_a_directory_of_any_name_can_be_written_to(tmp_path: Path, name: str) -> None:
    attempt = begin_attempt(tmp_path / name / "alerts", ORIGIN)
    assert sum(file.rows for file in write_all(attempt)) == 100


def test_plain_pandas_keeps_the_last_digits_of_ids_beside_nulls_and_other_readers_see_no_difference(
    tmp_path: Path,
) -> None:
    ids = [3_367_463_101_415_010_117, None, 2**53 + 1, -(2**63)]
    fluxes = [1.5, None, 2.0, 0.0]
    schema = pa.schema([("objectId", pa.string()), ("candid", pa.int64()), ("flux", pa.float64()), *KAFKA_FIELDS])
    columns = [["a", None, "c", "d"], ids, fluxes, [2] * 4, list(range(100, 104))]
    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    with StagedWriter(attempt, schema, ORIGIN) as writer:
        writer.write("day=24", pa.RecordBatch.from_arrays([pa.array(each) for each in columns], schema=schema))
        ((file),) = paths_of(attempt, finish(writer))
    path = tmp_path / "dataset" / "day=24" / "part.parquet"
    path.parent.mkdir(parents=True)
    file.rename(path)
    root = tmp_path / "dataset"
    for frame in (pd.read_parquet(root), ds.dataset(root).to_table().to_pandas(), pd.read_parquet(path)):
        assert frame["candid"].dtype == pd.Int64Dtype()
        assert [None if value is pd.NA else int(value) for value in frame["candid"]] == ids
        assert (frame["flux"].dtype, frame["kafka_offset"].dtype) == (np.float64, np.int64)
        assert frame["objectId"].tolist()[0] == "a"
    arrow = pd.read_parquet(root, dtype_backend="pyarrow")
    assert arrow["candid"].dtype == pd.ArrowDtype(pa.int64())
    assert arrow["candid"].dropna().astype(int).tolist() == [value for value in ids if value is not None]
    frames = [pl.read_parquet(path), pl.scan_parquet(root).collect(), duckdb.sql(f"FROM read_parquet('{path}')").pl()]
    for polars in frames:
        assert polars.schema["candid"] == pl.Int64
        assert polars["candid"].to_list() == ids
    with dask.config.set(scheduler="synchronous"):
        lazy = dd.read_parquet(root, dtype_backend="pyarrow")
        assert set(schema.names) <= set(lazy.columns), "Dask takes the columns that the footer names"
        assert lazy["candid"].compute().dropna().astype(int).tolist() == [value for value in ids if value is not None]
    assert npd.read_parquet(path)["candid"].dropna().astype(int).tolist() == [each for each in ids if each is not None]
