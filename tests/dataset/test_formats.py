"""Every format keeps each row, says where it comes from, and lets no damage pass."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from fink_dask.dataset import formats as avro_file
from fink_dask.dataset.formats import FORMATS, KAFKA_FIELDS, RAW_SCHEMA, Layout, Origin, format_of
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.settings import OUTFORMATS, RECORD_OUTFORMATS
from tests.harness.ledgers import SCHEMA

ORIGIN = Origin("ftransfer_ztf_2026-02-24_1", "kafka-id", OffsetRange(3, 1000, 3000), "0001-plan")
#: With gaps: each partition key has a file of its own.
OFFSETS = [*range(1000, 1400, 3), 1999, *range(2500, 3000)]
ALERTS: list[dict[str, Any]] = [{"class": f"kind {offset % 7}", "jd": 2_461_000.5 + offset} for offset in OFFSETS]


def encoded(alert: dict[str, Any]) -> bytes:
    """Encode an alert as Fink does."""
    target = io.BytesIO()
    fastavro.schemaless_writer(target, fastavro.parse_schema(json.loads(SCHEMA.text)), alert)
    return target.getvalue()


def layout_of(outformat: str) -> Layout:
    """Return what a file of such a format is given."""
    if outformat in RECORD_OUTFORMATS:
        return Layout(RAW_SCHEMA, records=SCHEMA)
    return Layout(pa.schema([*SCHEMA.arrow, *KAFKA_FIELDS]))


def write(outformat: str, path: Path) -> Path:
    """Write all alerts, in two parts."""
    layout = layout_of(outformat)
    rows: list[dict[str, Any]] = [
        {**({"value": encoded(alert)} if layout.records else alert), "kafka_partition": 3, "kafka_offset": offset}
        for alert, offset in zip(ALERTS, OFFSETS, strict=True)
    ]
    file = FORMATS[outformat].create(path, layout, ORIGIN)
    for part in (rows[:100], rows[100:]):
        file.write_table(pa.Table.from_pylist(part, schema=layout.columns))
    file.complete()
    file.close()
    return path


def test_every_format_can_be_asked_for_and_has_a_name_of_its_own() -> None:
    assert tuple(FORMATS) == OUTFORMATS
    assert set(RECORD_OUTFORMATS) < set(OUTFORMATS)
    assert len({each.suffix for each in FORMATS.values()}) == len(FORMATS)
    for outformat, each in FORMATS.items():
        assert each.suffix == f".{outformat}"
        assert format_of(Path(f"a/part-1{each.suffix}")) is each
    with pytest.raises(ValueError, match=r"'part\.fits'"):
        format_of(Path("a/part.fits"))


@pytest.mark.parametrize("outformat", OUTFORMATS)
def test_a_file_holds_each_row_and_says_where_it_comes_from(outformat: str, tmp_path: Path) -> None:
    path = write(outformat, tmp_path / "file")
    each = FORMATS[outformat]
    contents = each.read_contents(path)
    assert contents.rows == len(OFFSETS)
    assert {key: contents.footer[key] for key in ORIGIN.footer()} == ORIGIN.footer()
    partitions, offsets = each.read_places(path)
    assert set(partitions.tolist()) == {3}
    assert offsets.tolist() == OFFSETS
    chosen = [0, 99, 100, len(OFFSETS) - 1]
    for number, found in zip(chosen, each.read_alerts(path, chosen, SCHEMA), strict=True):
        place = {"kafka_partition": 3, "kafka_offset": OFFSETS[number]}
        assert found == (encoded(ALERTS[number]) if outformat in RECORD_OUTFORMATS else {**ALERTS[number], **place})
    with pytest.raises(FinkDaskError, match="fewer rows"):
        each.read_alerts(path, [0, len(OFFSETS)], SCHEMA)
    each.read_through(path)


def test_the_marker_of_an_avro_file_is_never_taken_for_the_place_of_its_offsets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a small range the place is as short as AAAA, which the hash that makes the marker can hold, too.
    alike = SimpleNamespace(sha256=lambda _: SimpleNamespace(digest=lambda: b"A" * 32))
    monkeypatch.setattr(avro_file, "hashlib", alike)
    path, origin = tmp_path / "file", replace(ORIGIN, range=OffsetRange(3, 1000, 1024))
    file = FORMATS["avro"].create(path, layout_of("avro"), origin)
    rows = [{"value": encoded(ALERTS[0]), "kafka_partition": 3, "kafka_offset": offset} for offset in (1000, 1023)]
    file.write_table(pa.Table.from_pylist(rows, schema=RAW_SCHEMA))
    file.complete()
    file.close()
    assert FORMATS["avro"].read_places(path)[1].tolist() == [1000, 1023]


@pytest.mark.parametrize("outformat", OUTFORMATS)
def test_two_attempts_write_the_same_bytes(outformat: str, tmp_path: Path) -> None:
    first, second = (write(outformat, tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("outformat", OUTFORMATS)
def test_a_file_that_is_cut_off_is_never_taken_for_a_whole_one(outformat: str, tmp_path: Path) -> None:
    whole = write(outformat, tmp_path / "file").read_bytes()
    path = tmp_path / "cut"
    for size in {0, 1, 4, *range(10, len(whole), len(whole) // 97), len(whole) - 1}:
        path.write_bytes(whole[:size])
        try:
            rows = FORMATS[outformat].read_contents(path).rows
            FORMATS[outformat].read_through(path)
        except (OSError, KeyError, ValueError, pa.ArrowException, FinkDaskError):
            continue
        assert rows < len(OFFSETS), size
