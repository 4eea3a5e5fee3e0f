"""Files have the codec that was asked for, except where it would be time lost, and every reader reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.ranges.task import transfer_range
from fink_dask.settings import COMPRESSIONS
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, assert_values_equal, fill_topic
from tests.harness.planned import plan_topic

pytestmark = pytest.mark.usefixtures("shared_dask")

CODECS = {"zstd": "ZSTD", "snappy": "SNAPPY", "lz4": "LZ4", "gzip": "GZIP", "brotli": "BROTLI", "none": "UNCOMPRESSED"}


@pytest.fixture(scope="module")
def full(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_FULL, 80, partitions=1)  # of a handful, none


def blobs(schema: pa.Schema) -> set[str]:
    """Find the columns of cutouts: whatever is binary."""

    def leaves(kind: pa.DataType, path: str) -> Iterator[tuple[str, pa.DataType]]:
        if not pa.types.is_struct(kind):
            yield path, kind
        for index in range(kind.num_fields if pa.types.is_struct(kind) else 0):
            yield from leaves(kind.field(index).type, f"{path}.{kind.field(index).name}")

    found = (leaf for field in schema for leaf in leaves(field.type, field.name))
    return {path for path, kind in found if pa.types.is_binary(kind)}


def codecs(path: Path) -> dict[str, str]:
    """Read which codec each column chunk of a file has."""
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    return {chunk.path_in_schema: chunk.compression for chunk in chunks}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_files_have_the_codec_that_was_asked_for_and_cutouts_of_ztf_have_none(
    kafka: Any, topic: str, full: Oracle, tmp_path: Path, compression: str
) -> None:
    (item,) = plan_topic(kafka.bootstrap_servers, topic, tmp_path / "out", compression=compression)
    transfer_range(item.range, item.settings)
    (path,) = (tmp_path / "out").rglob("*.parquet")
    found = codecs(path)
    cutouts = blobs(pq.read_schema(path))
    assert len(cutouts) == 3
    assert {found.pop(cutout) for cutout in cutouts} == {"UNCOMPRESSED"}
    assert set(found.values()) == {CODECS[compression]}
    assert_values_equal(ds.dataset(tmp_path / "out").to_table(), full)
    assert pl.read_parquet(path).height == len(full.values)


def test_the_option_reaches_the_workers_and_may_change_from_run_to_run(
    kafka: Any, topic: str, full: Oracle, tmp_path: Path
) -> None:
    arguments = transfer_arguments(kafka, topic, tmp_path / "out", "-nconsumers", "1")
    first = run_cli(*arguments, "-limit", "40", "-compression", "gzip")
    second = run_cli(*arguments, "--compression", "none", "--memory-limit", "700MiB")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert_exactly_once(tmp_path / "out", full.values)
    found = [codecs(path)["candid"] for path in sorted((tmp_path / "out").rglob("*.parquet"))]
    assert sorted(found) == ["GZIP", "UNCOMPRESSED"]


@pytest.mark.parametrize("name", ["lzma", "ZSTD9", "", "zstd,gzip"])
def test_a_codec_that_there_is_not_is_one_line(kafka: Any, topic: str, tmp_path: Path, name: str) -> None:
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "out", f"--compression={name}"))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "'--compression'" in line
    assert all(f"'{codec}'" in line for codec in COMPRESSIONS)
    assert not list(tmp_path.iterdir())
