"""A compacted dataset has the rows of the old one, however often its making was cut off; the old one is untouched."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from fink_dask.avro.schema import parse_schema
from fink_dask.compaction.compact import Caller, Compacted, compact_dataset
from fink_dask.compaction.groups import Form, RangeIndex, make_groups
from fink_dask.compaction.merge import find_duplicates
from fink_dask.compaction.task import Threads
from fink_dask.dataset.partitioning import resolve_partitioning
from fink_dask.dataset.presence import check_files
from fink_dask.dataset.schema_versions import known_versions, register
from fink_dask.errors import FinkDaskError, LedgerError, SettingsError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger import lease
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import DataFile, Marker, seal
from fink_dask.ledger.remainder import rest_of
from fink_dask.ledger.summary import summarise
from fink_dask.store import newfile
from fink_dask.verifying.files import verify_dataset
from tests.harness.crash import SOME_OR_EACH, run_until
from tests.harness.ledgers import (
    IDENTITY,
    SCHEMA,
    files_below,
    hashes_of,
    make_ledger,
    make_plan,
    make_whole,
    places,
    read_places,
    revise,
    transfer,
)
from tests.harness.powercut import Recorder, after_power_cut

RANGES = [OffsetRange(0, 0, 25), OffsetRange(0, 25, 60), OffsetRange(3, 100, 130), OffsetRange(7, 5, 6)]
PLANS = [make_plan(RANGES[:2]), make_plan(RANGES[2:], 2)]
PLACES = sorted(place for plan in PLANS for place in places(plan))


#: A dataset by itself, and one of several topics, whose directories are made with it.
IN_A_SEASON_OR_NOT = pytest.mark.parametrize(("name", "is_of_season"), [("few", False), ("nights/few", True)])


def _source(outdir: Path) -> Ledger:
    return make_whole(outdir, PLANS)


@pytest.fixture
def source(tmp_path: Path) -> Ledger:
    return _source(tmp_path / "alerts")


@pytest.fixture
def target(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "few")


def _compact(source: Ledger, target: Ledger, form: Form = Form()) -> Compacted:  # noqa: B008 - frozen
    return compact_dataset(source, target, form, Threads(1), Caller())


def _rows(ledger: Ledger) -> list[dict[str, object]]:
    table = pads.dataset(ledger.outdir, partitioning="hive").to_table()
    rows: list[dict[str, object]] = table.select(sorted(table.column_names)).to_pylist()
    return sorted(rows, key=lambda row: (str(row["kafka_partition"]), row["kafka_offset"]))


def test_a_compacted_dataset_has_the_same_rows_in_one_file_a_key_and_both_are_proved(
    source: Ledger, target: Ledger
) -> None:
    before = hashes_of(source)
    found = _compact(source, target)
    assert _rows(target) == _rows(source)
    assert [path.parent.name for path in files_below(target.outdir)] == [f"class=class%20{n}" for n in range(3)]
    assert (found.files_before, found.summary.files, found.is_new) == (len(files_below(source.outdir)), 3, True)
    assert hashes_of(source) == before
    for ledger in (source, target):
        assert verify_dataset(ledger).problems == ()
    assert replace(summarise(target).summary, written_bytes=0, files=0) == replace(
        summarise(source).summary, written_bytes=0, files=0
    )
    assert target.staged() == [], "what a transfer would meet"
    assert not _compact(source, target).is_new


@SOME_OR_EACH
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_operation_of_a_compaction(tmp_path: Path, every: int) -> None:
    source = _source(tmp_path / "alerts")
    before = hashes_of(source)
    for after in count(1, every):
        target = Ledger(tmp_path / str(after))
        killed = run_until(after, _compact, source, target)
        assert read_places(target) in ([], PLACES), "a reader sees all of it, or nothing"
        if not killed:
            break
        run_until(1 + 11 * after % 30, _compact, source, target)
        assert read_places(target) in ([], PLACES)
        _compact(source, target)
        assert read_places(target) == PLACES
        assert verify_dataset(target).problems == ()
        assert [path.name for path in target.staging_path.iterdir()] == []
    assert after > 60
    assert hashes_of(source) == before


@IN_A_SEASON_OR_NOT
def test_no_power_cut_in_a_compaction_leaves_a_dataset_that_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_of_season: bool
) -> None:
    source, target = _source(tmp_path / "alerts"), Ledger(tmp_path / name, is_of_season)
    recorder = Recorder(tmp_path)
    recorder.attach(monkeypatch)
    _compact(source, target)
    recorder.note()
    monkeypatch.undo()
    whole = {path: path.read_bytes() for path in [*files_below(target.outdir), *files_below(target.path)]}
    needed = [path for path in whole if path.suffix in {".parquet", ".avsc"} or path.parent == target.markers_path]
    seen = Counter[bool]()
    for eager in (False, True):
        for disk in after_power_cut(tmp_path, recorder.events, eager):
            # One of the plans makes it a dataset.
            is_dataset = any(path.parent == target.plans_path for path in disk)
            seen[is_dataset] += 1
            if is_dataset:
                assert all(disk.get(path) == whole[path] for path in needed)
                assert all(disk.get(target.plan_path(plan)) == whole[target.plan_path(plan)] for plan in PLANS)
    assert min(seen[True], seen[False]) > 2


class _Killed(BaseException):
    """Ends a run as a kill does: nothing is cleaned up after it."""


def _compact_until(count: int, source: Ledger, target: Ledger) -> bool:
    """Compact in this process, and let every operation after the first `count` fail; True if there were more."""
    seen = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen > count:
                raise _Killed
            return real(*args, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in ("link", "mkdir", "rename", "rmdir", "unlink"):
            patch.setattr(os, name, counting(getattr(os, name)))
        patch.setattr(newfile, "to_disk", counting(newfile.to_disk))
        try:
            _compact(source, target)
        except _Killed:
            return True
    return False


@IN_A_SEASON_OR_NOT
@pytest.mark.parametrize("every", [13, pytest.param(3, marks=pytest.mark.kills)])
def test_no_power_cut_after_a_kill_and_a_second_run_leaves_a_dataset_that_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_of_season: bool, every: int
) -> None:
    """What the run that was killed had not brought to the disk, the next one must: it can't tell the two apart."""
    monkeypatch.setattr(lease, "_is_alive", lambda path, now: False)  # it is this process that was killed
    source = _source(tmp_path / "alerts")
    for killed_after in range(20, 1000, every):
        root = tmp_path / str(killed_after)
        root.mkdir()
        target = Ledger(root / name, is_of_season)
        recorder = Recorder(root)
        with pytest.MonkeyPatch.context() as patch:
            recorder.attach(patch)
            was_killed = _compact_until(killed_after, source, target)
            _compact(source, target)
            recorder.note()
        whole = {path: path.read_bytes() for path in [*files_below(target.outdir), *files_below(target.path)]}
        needed = [path for path in whole if path.suffix in {".parquet", ".avsc"} or path.parent == target.markers_path]
        for eager in (False, True):
            disk = after_power_cut(recorder.root, recorder.events, eager)[-1]
            assert all(disk.get(target.plan_path(plan)) == whole[target.plan_path(plan)] for plan in PLANS)
            lost = [path for path in needed if disk.get(path) != whole[path]]
            assert not lost, f"killed after {killed_after} operations: {lost[0].name} is lost"
        if not was_killed:
            break
    assert killed_after > 100


def test_a_transfer_goes_on_from_a_compacted_dataset(tmp_path: Path) -> None:
    source, target = _source(tmp_path / "alerts"), Ledger(tmp_path / "few")
    _compact(source, target)
    create_ledger(target)
    with hold_lease(target):
        more = make_plan([OffsetRange(0, 60, 90), OffsetRange(9, 0, 40)], 3)
        roll_forward(target, target.plans())
        target.freeze(more, SCHEMA)
        for offset_range in more.ranges:
            transfer(target, more, offset_range)
    revise(target, more, OffsetRange(9, 0, 40))
    check_files(target, target.plans(), list(target.markers(target.plans())))
    assert read_places(target) == sorted(PLACES + places(more))
    assert verify_dataset(target).problems == ()
    again = Ledger(tmp_path / "fewer")
    _compact(target, again)
    assert _rows(again) == _rows(target)
    assert len(files_below(again.outdir)) == 3
    assert verify_dataset(again).problems == ()


@pytest.mark.parametrize("file_bytes", [1, 10**9])
def test_a_range_that_was_revised_is_compacted_and_revised_again(
    source: Ledger, target: Ledger, file_bytes: int
) -> None:
    """The next revision's files, also those of the quarantine, must have other names than the ones that are there."""
    revise(source, PLANS[0], RANGES[0])
    _compact(source, target, Form(file_bytes))
    create_ledger(target)
    roll_forward(target, PLANS)
    for _ in range(2):
        rest = rest_of(next(iter(target.markers(PLANS))))
        again = revise(target, PLANS[0], RANGES[0])
        assert again.revision == rest.revision
        assert again.quarantine is not None
        assert (target.path / again.quarantine.path).exists()
        assert again.quarantine != rest.quarantine


def test_a_marker_that_removes_its_own_files_is_refused(tmp_path: Path) -> None:
    source = _source(tmp_path / "alerts")
    marker = next(iter(source.markers(PLANS)))
    assert marker.quarantine is not None
    for file in (marker.files[0], marker.quarantine):
        with pytest.raises(LedgerError, match="supersedes"):
            replace(marker, superseded=(file.path,))


def test_what_was_interrupted_is_compacted_as_far_as_it_is_there(source: Ledger, target: Ledger) -> None:
    source.freeze(make_plan([OffsetRange(12, 0, 10)], 3), SCHEMA)
    assert _compact(source, target).summary.state == "interrupted"
    assert read_places(target) == PLACES
    assert summarise(target).missing == {12: [(0, 10)]}
    assert verify_dataset(target).problems == ()


def test_an_empty_dataset_is_compacted_to_an_empty_one(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 9, 10)])  # a hole
    source, target = make_ledger(tmp_path / "alerts", plan), Ledger(tmp_path / "few")
    transfer(source, plan, plan.ranges[0])
    assert _compact(source, target).summary.state == "complete"
    assert list(target.outdir.iterdir()) == []
    assert verify_dataset(target).problems == ()


@pytest.mark.parametrize("file_bytes", [1, 4000, 10**9])
def test_groups_are_about_as_large_as_asked_and_of_one_key(tmp_path: Path, file_bytes: int) -> None:
    source = _source(tmp_path / "alerts")
    markers = [marker for plan in PLANS for marker in source.markers([plan])]
    groups = make_groups(markers, file_bytes)
    files = [file for marker in markers for file in marker.files]
    assert sorted(file.path for group in groups for file in group.sources) == sorted(file.path for file in files)
    for group in groups:
        assert {str(Path(file.path).parent) for file in group.sources} == {group.directory}
        assert len(group.sources) == 1 or sum(file.size for file in group.sources) <= file_bytes
    assert [group.number for group in groups] == list(range(len(groups)))
    expected = {1: len(files), 10**9: 3}
    assert len(groups) == expected.get(file_bytes, len(groups))
    target = Ledger(tmp_path / "few")
    _compact(source, target, Form(file_bytes))
    assert len(files_below(target.outdir)) == len(groups)
    assert read_places(target) == PLACES


def test_of_alerts_with_the_same_identifier_the_first_stays(tmp_path: Path) -> None:
    source, target = _source(tmp_path / "alerts"), Ledger(tmp_path / "few")
    # The made-up alerts of one offset have the same time, whatever their partition.
    times = [(row["jd"], row["kafka_partition"], row["kafka_offset"]) for row in _rows(source)]
    with pytest.raises(SettingsError, match="not double"):
        _compact(source, target, Form(unique="jd"))
    assert not target.path.exists()
    files = files_below(source.outdir)
    doubled = pa.concat_tables(pq.ParquetFile(path).read() for path in files)
    offsets = doubled["kafka_offset"].to_pylist()
    found = find_duplicates(files, "kafka_offset", pa.int64())
    assert len(found) == len(offsets) - len(set(offsets)) > 0
    summary = _compact(source, target, Form(unique="kafka_offset")).summary
    kept = {offset: partition for partition, offset in reversed(PLACES)}
    assert read_places(target) == sorted((partition, offset) for offset, partition in kept.items())
    assert summary.duplicates == len(times) - len(kept) == len(found)
    assert summary.alerts + summary.duplicates == summarise(source).summary.alerts
    assert verify_dataset(target).problems == ()
    again = Ledger(tmp_path / "again")
    assert _compact(target, again, Form(unique="kafka_offset")).summary.duplicates == summary.duplicates


def test_alerts_without_an_identifier_are_no_duplicates(tmp_path: Path) -> None:
    rows = {
        "source": [{"id": "a"}, {"id": None}, {"id": "b"}, {"id": "a"}, None, {"id": "a"}],
        "kafka_partition": pa.array([1, 1, 1, 0, 0, 1], pa.int32()),
        "kafka_offset": pa.array([5, 6, 7, 9, 10, 4], pa.int64()),
    }
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    pq.write_table(pa.table(rows).drop_columns("source"), tmp_path / "y.parquet")  # before there was one
    found = find_duplicates([tmp_path / "x.parquet", tmp_path / "y.parquet"], "source.id", pa.string())
    partitions, offsets = (rows[name].to_numpy() for name in ("kafka_partition", "kafka_offset"))
    assert found.is_kept(partitions, offsets).tolist() == [False, True, True, True, True, False]


def test_an_alert_at_the_offset_of_a_duplicate_in_another_partition_stays(tmp_path: Path) -> None:
    rows = {
        "id": ["a", "a", "c", "a", "d"],
        "kafka_partition": pa.array([0, 0, 0, 1, 1], pa.int32()),
        "kafka_offset": pa.array([3, 7, 5, 5, 7], pa.int64()),
    }
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    found = find_duplicates([tmp_path / "x.parquet"], "id", pa.string())
    partitions, offsets = (rows[name].to_numpy() for name in ("kafka_partition", "kafka_offset"))
    for those in (found, found.among([OffsetRange(0, 0, 9), OffsetRange(1, 0, 9)])):
        assert those.is_kept(partitions, offsets).tolist() == [True, False, True, False, True]


def test_rows_of_no_range_are_noticed() -> None:
    index = RangeIndex([OffsetRange(0, 5, 10), OffsetRange(0, 20, 25), OffsetRange(2, 0, 3)])
    partitions, offsets = np.array([0, 0, 2, 0], np.int32), np.array([9, 20, 2, 5], np.int64)
    found = {offset_range: inside.tolist() for offset_range, inside in index.split(partitions, offsets).items()}
    assert found == {OffsetRange(0, 5, 10): [5, 9], OffsetRange(0, 20, 25): [20], OffsetRange(2, 0, 3): [2]}
    for partition, offset in ((0, 4), (0, 10), (0, 25), (1, 0), (2, 3)):
        with pytest.raises(LedgerError, match=f"partition {partition}"):
            index.split(np.array([partition], np.int32), np.array([offset], np.int64))


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(bytes(content))


def test_a_damaged_file_does_not_get_into_a_new_dataset(source: Ledger, target: Ledger) -> None:
    path = files_below(source.outdir)[1]
    content = path.read_bytes()
    _damage(path)
    with pytest.raises(LedgerError, match=path.name):
        _compact(source, target)
    assert not target.outdir.exists()
    path.write_bytes(content)
    _compact(source, target)
    assert _rows(target) == _rows(source)


def test_a_damaged_quarantine_file_does_not_get_into_a_new_dataset(source: Ledger, target: Ledger) -> None:
    path = files_below(source.quarantine_path)[0]
    _damage(path)
    with pytest.raises(LedgerError, match=path.name):
        _compact(source, target)
    assert not target.outdir.exists()


def _markers(ledger: Ledger) -> list[Marker]:
    return list(ledger.markers(ledger.plans()))


def _shared(ledger: Ledger) -> DataFile:
    return _markers(ledger)[0].files[0]


def test_a_damaged_file_of_many_ranges_is_said_once_and_concerns_them_all(source: Ledger, target: Ledger) -> None:
    _compact(source, target)
    _damage(target.outdir / _shared(target).path)
    found = verify_dataset(target)
    assert len(found.problems) == 1
    assert len(found.findings) == sum(_shared(target).path in {f.path for f in m.files} for m in _markers(target))


def test_a_marker_of_a_compacted_range_that_was_removed_is_missed(source: Ledger, target: Ledger) -> None:
    _compact(source, target)
    target.marker_path(RANGES[1]).unlink()
    with pytest.raises(LedgerError, match=rf"{RANGES[1].name}\.json"):
        check_files(target, target.plans(), list(target.markers(target.plans())))
    assert [bad.range for bad in verify_dataset(target).damaged] == [RANGES[1]]


def test_a_marker_that_takes_other_rows_for_its_own_is_noticed(source: Ledger, target: Ledger) -> None:
    _compact(source, target)
    marker, *_ = _markers(target)
    share, *others = marker.files
    changed = replace(
        marker, files=(replace(share, rows=share.rows - 1), *others), rows=marker.rows - 1, filtered=marker.filtered + 1
    )
    target.marker_path(marker.range).write_bytes(seal("marker", changed.to_json()))
    assert any(share.path in problem and str(marker.range) in problem for problem in verify_dataset(target).problems)


def test_a_compaction_that_was_begun_is_begun_anew_when_the_dataset_has_changed(source: Ledger, target: Ledger) -> None:
    _begin(source, target)
    more = make_plan([OffsetRange(0, 60, 90)], 3)
    source.freeze(more, SCHEMA)
    transfer(source, more, more.ranges[0])
    notes: list[str] = []
    compact_dataset(source, target, Form(), Threads(1), Caller(note=notes.append))
    assert ["anew" in note for note in notes] == [True]
    assert read_places(target) == sorted(PLACES + places(more))
    assert verify_dataset(target).problems == ()


def _begin(source: Ledger, target: Ledger) -> None:
    assert run_until(30, _compact, source, target)
    assert target.compaction_path.exists()


def test_a_dataset_whose_name_is_that_of_the_new_ledger_is_not_taken_for_it(tmp_path: Path) -> None:
    source, target = _source(tmp_path / "few.fink"), Ledger(tmp_path / "few")
    before = hashes_of(source)
    with pytest.raises(StorageError, match="itself"):
        _compact(source, target)
    assert hashes_of(source) == before


def test_a_directory_that_only_seems_empty_is_refused_before_anything_is_done(source: Ledger, target: Ledger) -> None:
    target.outdir.mkdir()
    (target.outdir / ".DS_Store").write_text("x")
    with pytest.raises(StorageError, match="empty"):
        _compact(source, target)
    assert not target.path.exists()
    (target.outdir / ".DS_Store").unlink()
    _compact(source, target)
    assert read_places(target) == PLACES


@pytest.mark.parametrize("name", ["few", "alerts/inside", "."])
def test_a_directory_that_can_t_take_the_new_dataset_is_refused(tmp_path: Path, name: str) -> None:
    source, target = _source(tmp_path / "alerts"), Ledger((tmp_path / name).resolve())
    target.outdir.mkdir(exist_ok=True)
    (target.outdir / "thesis.tex").write_text("x")
    before = hashes_of(source)
    with pytest.raises(StorageError):
        _compact(source, target)
    assert hashes_of(source) == before
    assert (target.outdir / "thesis.tex").exists()


def test_a_disk_that_is_too_small_is_said_in_amounts_that_can_be_read(
    source: Ledger, target: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fink_dask.store.local.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"1\.0 kB .* [\d.]+ [kM]B"):
        _compact(source, target)


def test_what_can_t_be_compacted_is_refused_in_one_line(tmp_path: Path) -> None:
    source, target = _source(tmp_path / "alerts"), Ledger(tmp_path / "few")
    with pytest.raises(SettingsError, match=r"\bown\b"):
        _compact(source, source)
    with hold_lease(source), pytest.raises(LedgerError, match=f"{source.outdir}"):
        _compact(source, target)
    with pytest.raises(SettingsError, match="--unique candid"):
        _compact(source, target, Form(unique="candid"))
    with pytest.raises(LedgerError, match=r"nothing\.fink"):
        _compact(Ledger(tmp_path / "nothing"), target)
    assert not target.path.exists()
    _compact(source, target)
    with pytest.raises(StorageError, match=" compacted"):
        _compact(source, target, Form(file_bytes=1))
    with pytest.raises(StorageError, match="transferred"):
        _compact(target, source)


def test_nobody_takes_a_compaction_that_is_not_complete_for_a_dataset(source: Ledger, target: Ledger) -> None:
    _begin(source, target)
    for use in (create_ledger, verify_dataset):
        with pytest.raises(FinkDaskError, match="complete"):
            use(target)


def test_what_says_that_a_group_is_complete_is_not_believed_when_it_is_damaged(tmp_path: Path) -> None:
    source = _source(tmp_path / "alerts")
    for number, content in enumerate((b"", b"{", b'{"fink_dask": "group"}', seal("group", {"file": 1}),
                                      seal("group", {"file": None, "rows": [[1]], "left_out": []}))):  # fmt: skip
        target = Ledger(tmp_path / str(number))
        _begin(source, target)
        (workspace,) = target.staging_path.iterdir()
        for path in [*workspace.glob("group-*.json"), workspace / "group-000002.json"]:
            path.write_bytes(content)
        _compact(source, target)
        assert read_places(target) == PLACES
        assert verify_dataset(target).problems == ()


@pytest.mark.parametrize("content", [b"{", seal("ready", {}), seal("ready", {"assembly": "../../../alerts"})])
def test_an_assembly_that_can_t_be_one_is_not_renamed(source: Ledger, target: Ledger, content: bytes) -> None:
    _begin(source, target)
    (workspace,) = target.staging_path.iterdir()
    (workspace / "ready.json").write_bytes(content)
    with pytest.raises(LedgerError, match=r"ready\.json"):
        _compact(source, target)
    assert (source.outdir / "class=class%200").is_dir()


def test_two_compactions_at_once_are_refused(source: Ledger, target: Ledger) -> None:
    _begin(source, target)
    with hold_lease(target), pytest.raises(LedgerError, match="running"):
        _compact(source, target)
    _compact(source, target)
    assert read_places(target) == PLACES


def test_columns_of_a_later_schema_are_null_in_earlier_rows(source: Ledger, target: Ledger) -> None:
    """Files may have the columns of the schemas that were known when they were written, each its own."""
    fields = [*json.loads(SCHEMA.text)["fields"], {"name": "new", "type": ["null", "double"]}]
    later = parse_schema(json.dumps({"type": "record", "name": "alert", "fields": fields}))
    register(source, IDENTITY, resolve_partitioning(("class",), None, SCHEMA.arrow), later)
    marker = next(iter(source.markers(PLANS[1:])))
    content = json.loads(source.marker_path(marker.range).read_bytes())["marker"]
    for file in content["files"]:
        path = source.outdir / file["path"]
        table, metadata = pq.ParquetFile(path).read(), pq.ParquetFile(path).metadata.metadata
        table = table.append_column("new", pa.array([1.5] * table.num_rows))
        with pq.ParquetWriter(path, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({k: v for k, v in metadata.items() if k.startswith(b"fink")})
        file |= {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    source.marker_path(marker.range).write_bytes(seal("marker", content))
    _compact(source, target)
    rows = _rows(target)
    assert {row["new"] for row in rows if row["kafka_partition"] == marker.range.partition} == {1.5}
    assert {row["new"] for row in rows if row["kafka_partition"] != marker.range.partition} == {None}
    assert verify_dataset(target).problems == ()
    assert known_versions(target, IDENTITY) == known_versions(source, IDENTITY)
