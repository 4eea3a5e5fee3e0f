"""What a Parquet file costs its reader and its disk: codecs and statistics, column by column."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fink_dask.dataset.encoding import Looks, ParquetFileWriter

RANDOM = random.Random(1)
NOISE = [RANDOM.randbytes(3000) for _ in range(20)]
SMOOTH = [noise[:1500] + bytes(1500) for noise in NOISE]


def write(
    path: Path, *tables: pa.Table, compression: str = "zstd", looks: Looks | None = None
) -> dict[str, pq.ColumnChunkMetaData]:
    """Write a file; returns what its first row group says of each column."""
    writer = ParquetFileWriter(path, tables[0].schema, compression, {"made": "by a test"}, looks)
    for table in tables:
        writer.write_table(table)
    writer.complete()
    writer.close()
    assert pq.read_table(path).equals(pa.concat_tables(tables))
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema: column for column in columns}


def stamps(values: list[bytes | None]) -> pa.Table:
    """Hold bytes wherever a schema may have them."""
    return pa.table(
        {
            "cutout": pa.array(values, pa.binary()),
            "cutoutScience": pa.array(
                [{"stampData": value} for value in values], pa.struct({"stampData": pa.binary()})
            ),
            "cutouts": pa.array([[{"data": value}] for value in values], pa.list_(pa.struct({"data": pa.binary()}))),
            "named": pa.array([[("a", value)] for value in values], pa.map_(pa.string(), pa.binary())),
            "text": [str(number) for number in range(len(values))],
        }
    )


BYTES = {"cutout", "cutoutScience.stampData", "cutouts.list.element.data", "named.key_value.value"}


@pytest.mark.parametrize("compression", ["zstd", "lz4", "snappy", "gzip", "brotli"])
def test_bytes_are_compressed_where_they_shrink_and_kept_as_they_are_where_they_do_not(
    tmp_path: Path, compression: str
) -> None:
    for values, expected in ((SMOOTH, {compression.upper()}), (NOISE, {"UNCOMPRESSED"})):
        found = write(tmp_path / "a.parquet", stamps([None, *values]), compression=compression)
        assert {found[path].compression for path in BYTES} == expected, "a dataset is twice as large, or slow to read"
        assert {column.compression for path, column in found.items() if path not in BYTES} == {compression.upper()}


def test_the_first_rows_decide_and_where_they_have_no_bytes_all_is_compressed(tmp_path: Path) -> None:
    nothing = stamps([None] * 5)
    found = write(tmp_path / "a.parquet", nothing, stamps(list(NOISE)))
    assert {found[path].compression for path in BYTES} == {"ZSTD"}
    found = write(tmp_path / "b.parquet", nothing.slice(0, 0), stamps(list(NOISE)))
    assert {column.compression for column in found.values()} == {"ZSTD"}


def test_a_file_without_rows_is_one(tmp_path: Path) -> None:
    writer = ParquetFileWriter(tmp_path / "a.parquet", stamps(list(NOISE)).schema, "zstd", {"made": "by a test"})
    writer.complete()
    writer.close()
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert (metadata.num_rows, metadata.metadata[b"made"]) == (0, b"by a test")


def test_a_full_disk_prints_nothing_beside_its_error(capfd: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"name": [RANDOM.randbytes(1000).hex() for _ in range(1000)]})
    writer = ParquetFileWriter(Path("/dev/full"), table.schema, "zstd", {})
    with pytest.raises(OSError, match="space"):
        writer.write_table(table)
    writer.close()
    del writer
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_numbers_that_readers_look_for_alerts_by_have_statistics_and_what_tells_them_nothing_has_none(
    tmp_path: Path,
) -> None:
    detection = {"ra": 1.5, "jd": 2460000.5, "magpsf": 18.5, "data": b"x", "digest": b"0123456789abcdef"}
    table = pa.table(
        {
            "kafka_offset": [0, 1],
            "jd": [2460000.5, None],
            "magpsf": [18.0, 19.0],
            "candidate": [detection, detection],
            "prv_candidates": [[detection], []],
            "finkclass": ["SN", "QSO"],
            "is_new": [True, False],
        }
    )
    found = write(tmp_path / "a.parquet", table)
    kept = {path for path, column in found.items() if column.statistics is not None}
    assert kept == {"kafka_offset", "jd", "candidate.ra", "candidate.jd", "is_new"}
    assert (found["jd"].statistics.min, found["jd"].statistics.null_count) == (2460000.5, 1)
    assert (found["kafka_offset"].statistics.min, found["kafka_offset"].statistics.max) == (0, 1)


def laid_out(column: pq.ColumnChunkMetaData) -> tuple[bool, bool]:
    """Tell whether a column is split by bytes, and whether it has a dictionary."""
    return "BYTE_STREAM_SPLIT" in column.encodings, column.has_dictionary_page


def test_numbers_are_left_as_they_are_where_they_are_too_few_to_shrink(tmp_path: Path) -> None:
    for rows, codec in ((11, "UNCOMPRESSED"), (400, "ZSTD")):
        numbers = {name: [RANDOM.gauss(18, 2) for _ in range(rows)] for name in ("magpsf", "jd")}
        lists = [[1.5] * 500 for _ in range(rows)]
        texts = {"cutout": [SMOOTH[0]] * rows, "classification": ["Unknown"] * rows}
        table = pa.table({**numbers, "ndethist": range(rows), "history": lists, **texts})
        found = write(tmp_path / "a.parquet", table)
        assert {found[name].compression for name in (*numbers, "ndethist")} == {codec}
        assert {found[name].compression for name in ("history.list.element", *texts)} == {"ZSTD"}
        assert found["classification"].has_dictionary_page == (rows == 400)


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_numbers_and_texts_are_laid_out_as_takes_the_least(tmp_path: Path, compression: str) -> None:
    alike = [RANDOM.choice([RANDOM.random() for _ in range(3)]) for _ in range(2)] * 500
    smooth, texts = [18 + RANDOM.random() for _ in alike], [f"object {number}" for number in range(len(alike))]
    table = pa.table(
        {
            "alike": alike,
            "smooth": smooth,
            "nested": [{"points": [one, None]} for one in alike],
            "empty": pa.nulls(len(alike), pa.float64()),
            "name": texts,
            "kind": ["star", "galaxy"] * 500,
        }
    )
    found = write(tmp_path / "a.parquet", table, compression=compression)
    split = compression != "none"  # it makes nothing smaller by itself
    layouts = {path: laid_out(column) for path, column in found.items()}
    assert layouts == {
        "alike": (False, False),
        "smooth": (split, False),
        "nested.points.list.element": (False, False),
        "empty": (split, False),
        "name": (False, False),
        "kind": (False, True),
    }


def test_hundreds_of_files_of_a_range_are_laid_out_as_the_first_tells_that_has_rows_enough(tmp_path: Path) -> None:
    def layout(text: str, count: int, looks: Looks) -> tuple[str, ...]:
        table = pa.table({"text": [text.format(number) for number in range(count)]})
        return tuple(write(tmp_path / "a.parquet", table, looks=looks)["text"].encodings)

    alike, unlike = layout("a", 300, Looks()), layout("{}", 300, Looks())
    assert alike != unlike
    looks = Looks()
    assert layout("{}", 40, looks) == alike, "a few rows tell nothing"
    assert layout("{}", 300, looks) == unlike
    assert layout("a", 300, looks) == unlike, "each file of a range is looked at, which takes as long as writing it"


@pytest.mark.parametrize(
    ("field", "is_needed"),
    [
        (pa.field("flux", pa.list_(pa.struct([("time", pa.timestamp("us", "UTC")), ("flux", pa.float32())]))), False),
        (pa.field("flux", pa.float32(), metadata={"unit": "nJy"}), True),
        (pa.field("flux", pa.struct([pa.field("flux", pa.float32(), metadata={"unit": "nJy"})])), True),
        (pa.field("flux", pa.duration("us")), True),
    ],
    ids=["what Parquet says", "a unit", "a unit within", "a type of Arrow's own"],
)
def test_arrows_own_schema_takes_no_room_where_parquets_says_the_same(
    tmp_path: Path, field: pa.Field, is_needed: bool
) -> None:
    path = tmp_path / "a.parquet"
    write(path, pa.table([pa.nulls(3, field.type)], schema=pa.schema([field])))
    assert (b"ARROW:schema" in pq.read_metadata(path).metadata) == is_needed
    read = pq.read_schema(path).field(0)
    assert read.equals(field)
    assert str(read.metadata) == str(field.metadata)
    assert {"pandas", "made"} <= {name.decode() for name in pq.read_metadata(path).metadata}
