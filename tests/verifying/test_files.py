"""Whatever happens to a dataset, `verify` sees it."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fink_dask.dataset.formats import ParquetFormat
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import staging_of
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker, seal
from fink_dask.verifying.files import verify_dataset
from tests.harness.ledgers import SCHEMA, files_below, make_ledger, make_plan, transfer

#: No record of the first two can't be decoded, so that only damage makes them less than complete.
FIRST, SECOND, THIRD = OffsetRange(0, 0, 7), OffsetRange(0, 10, 17), OffsetRange(1, 0, 30)
PLAN = make_plan([FIRST, SECOND, THIRD])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    for offset_range in PLAN.ranges:
        transfer(ledger, PLAN, offset_range)
    return ledger


def _marker(ledger: Ledger, offset_range: OffsetRange) -> Marker:
    marker = ledger.marker(offset_range, PLAN.plan_id)
    assert marker is not None
    return marker


def _path(ledger: Ledger, offset_range: OffsetRange = FIRST, index: int = 0) -> Path:
    return ledger.outdir / _marker(ledger, offset_range).files[index].path


def _forge(ledger: Ledger, offset_range: OffsetRange, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a marker and its checksum."""
    path = ledger.marker_path(offset_range)
    content = json.loads(path.read_bytes())["marker"]
    change(content)
    path.write_bytes(seal("marker", content))


def _rewrite(
    ledger: Ledger, path: Path, change: Callable[[pa.Table], pa.Table], offset_range: OffsetRange = FIRST
) -> None:
    """Change a file of a range, and its marker so that size and checksum are right."""
    with pq.ParquetFile(path) as parquet:
        table, footer = parquet.read(), parquet.metadata.metadata
    changed = change(table)
    own = {key: value for key, value in footer.items() if key.startswith(b"fink_dask")}
    with pq.ParquetWriter(path, changed.schema) as writer:
        writer.add_key_value_metadata(own | (changed.schema.metadata or {}))
        writer.write_table(changed)
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()

    def forge(content: dict[str, Any]) -> None:
        for file in content["files"]:
            if file["path"] == path.relative_to(ledger.outdir).as_posix():
                file.update(size=size, sha256=digest)

    _forge(ledger, offset_range, forge)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def _exchange(ledger: Ledger) -> None:
    one, other = _path(ledger, FIRST), _path(ledger, SECOND)
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def _with_offsets(offsets: Callable[[int], int]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("kafka_offset")
        column = pa.array([offsets(offset) for offset in table["kafka_offset"].to_pylist()], pa.int64())
        return table.set_column(index, table.schema.field(index), column)

    return change


def _swap_for_foreign_footer(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({b"fink_dask.topic": b"ftransfer_ztf_another"})


def _link(ledger: Ledger) -> None:
    (ledger.outdir / "more").symlink_to(ledger.path / "quarantine")


def _unpublish(ledger: Ledger) -> None:
    marker = _marker(ledger, FIRST)
    staging = staging_of(ledger, marker)
    staging.mkdir()
    _path(ledger).rename(staging / marker.files[0].staged)


def _quarantine(ledger: Ledger) -> Path:
    quarantine = _marker(ledger, THIRD).quarantine
    assert quarantine is not None
    return ledger.path / quarantine.path


def _forge_text(ledger: Ledger) -> None:
    path = _path(ledger)
    path.write_bytes(b"text")
    digest = hashlib.sha256(b"text").hexdigest()
    _forge(ledger, FIRST, lambda content: content["files"][0].update(size=4, sha256=digest))


DAMAGE: list[tuple[str, Callable[[Ledger], object], str]] = [
    ("deleted", lambda ledger: _path(ledger).unlink(), "missing"),
    ("the whole dataset deleted", lambda ledger: shutil.rmtree(ledger.outdir), "missing"),
    ("truncated", lambda ledger: _path(ledger).write_bytes(_path(ledger).read_bytes()[:-9]), "bytes, but"),
    ("emptied", lambda ledger: _path(ledger).write_bytes(b""), "0 bytes, but"),
    ("a flipped byte", lambda ledger: _flip(_path(ledger)), "written"),
    ("two files exchanged", _exchange, "written"),
    (
        "a copy under another name",
        lambda ledger: shutil.copy(_path(ledger), _path(ledger).with_name("x.parquet")),
        "/x.parquet",
    ),
    ("a file of somebody else's", lambda ledger: (ledger.outdir / "x.txt").write_text("x"), "/x.txt"),
    ("a hidden file", lambda ledger: (ledger.outdir / ".x.parquet").write_text("x"), "/.x.parquet"),
    ("a link to a directory", _link, "/more"),
    ("a directory in the place of a file", lambda ledger: [_path(ledger).unlink(), _path(ledger).mkdir()], ""),
    ("quarantine deleted", lambda ledger: _quarantine(ledger).unlink(), "missing"),
    ("quarantine damaged", lambda ledger: _flip(_quarantine(ledger)), "written"),
    ("a committed file still staged", _unpublish, "committed"),
    (
        "an offset twice",
        lambda ledger: [
            _rewrite(ledger, _path(ledger, FIRST, index), _with_offsets(lambda offset: offset // 4))
            for index in range(3)
        ],
        "twice",
    ),
    (
        "rows of another range",
        lambda ledger: _rewrite(ledger, _path(ledger), _with_offsets(lambda offset: offset + 10)),
        str(FIRST),
    ),
    (
        "an offset of a hole",
        lambda ledger: _rewrite(
            ledger, _path(ledger, THIRD), _with_offsets(lambda offset: 9 if offset == 0 else offset), THIRD
        ),
        "offset 9",
    ),
    (
        "an offset that is quarantined as well",
        lambda ledger: _rewrite(
            ledger, _path(ledger, THIRD), _with_offsets(lambda offset: 7 if offset == 0 else offset), THIRD
        ),
        "offset 7",
    ),
    (
        "another topic's rows",
        lambda ledger: _rewrite(ledger, _path(ledger), _swap_for_foreign_footer),
        "fink_dask.topic",
    ),
    (
        "rows without offsets",
        lambda ledger: _rewrite(ledger, _path(ledger), lambda table: table.drop_columns(["kafka_offset"])),
        "kafka_offset",
    ),
    ("no Parquet at all", _forge_text, "Parquet"),
]


@pytest.mark.parametrize(("damage", "words"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_damage_to_the_files_is_found(ledger: Ledger, damage: Callable[[Ledger], object], words: str) -> None:
    assert verify_dataset(ledger).problems == ()
    damage(ledger)
    found = verify_dataset(ledger)
    assert any(words in problem for problem in found.problems)
    assert all("\n" not in problem for problem in found.problems)
    assert (found.summary.state, found.summary.exit_code) == ("failed", 1)


FORGED: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("a path that leaves the dataset", lambda m: m["files"][0].update(path="../../x")),
    ("a path that leaves it later", lambda m: m["files"][0].update(path="a/../../../x")),
    ("an absolute path", lambda m: m["files"][0].update(path="/etc/passwd")),
    ("NUL in a path", lambda m: m["files"][0].update(path="a\0b")),
    ("an empty path", lambda m: m["files"][0].update(path="")),
    ("a path that is a number", lambda m: m["files"][0].update(path=1)),
    ("a staged name that leaves the ledger", lambda m: m["files"][0].update(staged="../../x")),
    ("an attempt that leaves the ledger", lambda m: m.update(attempt="/../../../x")),
    ("an attempt with NUL", lambda m: m.update(attempt="\0")),
    ("no attempt", lambda m: m.update(attempt="")),
    ("an attempt that is a number", lambda m: m.update(attempt=1)),
    ("more rows", lambda m: m.update(rows=m["rows"] + 1)),
    ("other rows", lambda m: m.update(rows=m["rows"] - 1, filtered=1)),
    ("fewer than no rows", lambda m: m.update(filtered=-1, quarantined=1)),
    ("rows in words", lambda m: m.update(rows="many")),
    ("an infinite range", lambda m: m.update(range=[0, 0, float("inf")])),
    ("another range", lambda m: m.update(range=[5, 0, 7])),
    ("an empty range", lambda m: m.update(range=[0, 0, 0])),
    ("another plan", lambda m: m.update(plan_id="00000000")),
    ("a plan that leaves the ledger", lambda m: m.update(plan_id="../../x")),
    ("a plan that is a number", lambda m: m.update(plan_id=1)),
    ("a loss elsewhere", lambda m: m.update(lost=[[100, 101]], filtered=-1)),
    ("a loss twice", lambda m: m.update(lost=[[0, 1], [0, 1]])),
    ("no files", lambda m: m.update(files=[])),
    ("a quarantine without a file", lambda m: m.update(quarantined=1, filtered=-1)),
    ("more keys", lambda m: m.update(more=1)),
    ("fewer keys", lambda m: m.pop("files")),
]


@pytest.mark.parametrize("change", [case[1] for case in FORGED], ids=[case[0] for case in FORGED])
def test_a_forged_marker_is_refused_and_nothing_is_touched(
    ledger: Ledger, change: Callable[[dict[str, Any]], object]
) -> None:
    _forge(ledger, FIRST, change)
    files = files_below(ledger.path.parent)
    found = verify_dataset(ledger)
    assert found.summary.state == "failed"
    assert [marker.range for marker in found.damaged] == [FIRST]
    assert len(found.problems) == 1, "its own files are not called foreign"
    assert found.damaged_ranges == {FIRST.partition: [(FIRST.start, FIRST.end)]}
    assert "\n" not in found.problems[0]
    assert files_below(ledger.path.parent) == files
    with pytest.raises(LedgerError):
        list(ledger.markers([PLAN]))


EDITS: list[Callable[[bytes], bytes]] = [
    lambda content: content.replace(b'"rows":7', b'"rows":6'),
    lambda content: content.replace(b'"raw_bytes":700', b'"raw_bytes":70'),
    lambda content: content[:-20],
    lambda content: b"",
    lambda content: b"\xff" * 10,
    lambda content: b"[" * 100_000,
    lambda content: content.replace(b'"format":1', b'"format":0'),
]


@pytest.mark.parametrize("edit", EDITS)
def test_a_marker_that_was_edited_by_hand_is_refused(ledger: Ledger, edit: Callable[[bytes], bytes]) -> None:
    path = ledger.marker_path(FIRST)
    before = path.read_bytes()
    path.write_bytes(edit(before))
    assert path.read_bytes() != before
    found = verify_dataset(ledger)
    assert ([marker.range for marker in found.damaged], found.summary.state) == ([FIRST], "failed")


def test_a_marker_of_a_later_version_is_no_damage_that_a_repair_would_mend(ledger: Ledger) -> None:
    path = ledger.marker_path(FIRST)
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":9'))
    with pytest.raises(LedgerError, match="'9'"):
        verify_dataset(ledger)


@pytest.mark.parametrize("committed", [True, False])
def test_a_plan_of_another_topic_is_found(ledger: Ledger, committed: bool) -> None:
    other = make_plan(PLAN.ranges, topic="ftransfer_ztf_another")
    (ledger.plans_path / "00000001.json").write_bytes(seal("plan", other.to_json()))
    if committed:
        found = verify_dataset(ledger)
        assert [marker.range for marker in found.damaged] == list(PLAN.ranges)
        assert other.plan_id in found.problems[0]
        return
    for offset_range in PLAN.ranges:
        _forge(ledger, offset_range, lambda marker: marker.update(plan_id=other.plan_id))
    assert "fink_dask.topic" in verify_dataset(ledger).problems[0]


def test_a_missing_generation_of_the_plan_is_found(ledger: Ledger) -> None:
    ledger.freeze(make_plan([OffsetRange(2, 0, 5)], generation=2), SCHEMA)
    (ledger.plans_path / "00000001.json").unlink()
    with pytest.raises(LedgerError, match="generation"):
        verify_dataset(ledger)


def test_an_offset_that_two_generations_hold_is_found(ledger: Ledger) -> None:
    ledger.freeze(make_plan([OffsetRange(0, 16, 20)], generation=2), SCHEMA)
    with pytest.raises(LedgerError, match="twice"):
        verify_dataset(ledger)


def test_a_missing_range_is_interrupted(ledger: Ledger) -> None:
    ledger.freeze(make_plan([OffsetRange(2, 0, 5)], generation=2), SCHEMA)
    found = verify_dataset(ledger)
    assert found.problems == ()
    assert found.completeness.missing == {2: [(0, 5)]}
    assert (found.summary.state, found.summary.exit_code) == ("interrupted", 1)


def _outcome(tmp_path: Path, ranges: list[OffsetRange], **changes: Any) -> tuple[str, int]:
    plan = make_plan(ranges)
    if "filtered" in changes:
        plan = replace(plan, identity=replace(plan.identity, where="jd < 0"))
    ledger = make_ledger(tmp_path / "alerts", plan)
    for offset_range in ranges:
        marker = transfer(ledger, plan, offset_range)
        if changes:
            for file in marker.files:
                (ledger.outdir / file.path).unlink()
            gone = replace(marker, rows=0, files=(), **changes)
            ledger.marker_path(offset_range).write_bytes(seal("marker", gone.to_json()))
    found = verify_dataset(ledger)
    assert found.problems == ()
    return found.summary.state, found.summary.exit_code


OUTCOMES: list[tuple[list[OffsetRange], dict[str, Any], tuple[str, int]]] = [
    ([FIRST], {}, ("complete", 0)),
    ([THIRD], {}, ("partial", 3)),
    ([FIRST], {"lost": ((0, 7),)}, ("partial", 3)),
    ([FIRST], {"filtered": 7}, ("complete", 0)),
    ([FIRST], {"holes": ((0, 7),)}, ("complete", 0)),
]


@pytest.mark.parametrize(("ranges", "changes", "expected"), OUTCOMES)
def test_a_script_is_told_what_became_of_the_alerts(
    tmp_path: Path, ranges: list[OffsetRange], changes: dict[str, Any], expected: tuple[str, int]
) -> None:
    assert _outcome(tmp_path, ranges, **changes) == expected


def test_what_nobody_has_asked_to_filter_is_missing(ledger: Ledger) -> None:
    marker = ledger.marker(FIRST, PLAN.plan_id)
    assert marker is not None
    gone, *kept = marker.files
    (ledger.outdir / gone.path).unlink()
    said = replace(marker, files=tuple(kept), rows=marker.rows - gone.rows, filtered=gone.rows)
    ledger.marker_path(FIRST).write_bytes(seal("marker", said.to_json()))
    found = verify_dataset(ledger)
    (problem,) = found.problems
    assert "condition" in problem
    # All that a repair needs to fetch them: what is there, and is as it was.
    (finding,) = found.findings
    assert finding.files == tuple(kept)


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(errno.EIO, "Input/output error", "a.parquet"), "Input/output error"), (OSError(), "OSError")],
)
def test_a_disk_that_can_not_be_read_is_said_once_and_without_a_trace(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = _path(ledger)
    monkeypatch.setattr(ParquetFormat, "read_contents", fail)
    assert f"{path}: {words}" in verify_dataset(ledger).problems


def test_a_dataset_without_a_ledger_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"alerts\.fink"):
        verify_dataset(Ledger(tmp_path / "alerts"))


def test_files_that_macos_leaves_everywhere_are_no_problem(ledger: Ledger) -> None:
    for name in (".DS_Store", "._part.parquet"):
        (_path(ledger).parent / name).write_bytes(b"\0")
    assert verify_dataset(ledger).problems == ()
    (ledger.outdir / "._more").symlink_to(ledger.path)
    assert len(verify_dataset(ledger).problems) == 1, "readers follow a link"


def test_every_byte_is_reported_as_checked(ledger: Ledger) -> None:
    checked: list[int] = []
    found = verify_dataset(ledger, checked.append)
    quarantined = _quarantine(ledger).stat().st_size
    assert sum(checked) == found.summary.written_bytes + quarantined
    assert found.summary.files == len(files_below(ledger.outdir))


@pytest.mark.parametrize("name", ["a [b]*?", "été☃", "with spaces ", "100%25"])
def test_a_dataset_of_any_name_can_be_verified(tmp_path: Path, name: str) -> None:
    assert _outcome(tmp_path / name, [FIRST]) == ("complete", 0)
