"""The ledger knows what is committed, whatever order things happen in, and mixes nothing with a user's files."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange, subtract
from fink_dask.ledger.commit import Attempt, publish, roll_forward
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.outdir import check_outdir, create_ledger, remove_if_unused
from fink_dask.ledger.records import checksum
from fink_dask.ledger.summary import summarise
from tests.harness.examples import examples
from tests.harness.ledgers import (
    IDENTITY,
    SCHEMA,
    alerts_of,
    make_ledger,
    make_plan,
    places,
    read_places,
    stage_range,
    transfer,
)

RANGES = [OffsetRange(0, 0, 8), OffsetRange(0, 8, 20), OffsetRange(0, 25, 30), OffsetRange(4, 3, 9)]
PLANS = [make_plan(RANGES[:2]), make_plan(RANGES[2:], generation=2)]
STATES = ["open", "begun", "staged", "committed", "half published", "published", "committed beside a late attempt"]


def _bring_to(ledger: Ledger, offset_range: OffsetRange, state: str) -> None:
    plan = PLANS[0] if offset_range in PLANS[0].ranges else PLANS[1]
    if state == "open":
        return
    attempt = Attempt(ledger, offset_range, plan.plan_id, lambda _: None)
    attempt.begin()
    if state == "begun":
        return
    marker = stage_range(attempt, plan, offset_range)
    if state == "staged":
        return
    attempt.commit(marker)
    if state == "published":
        publish(ledger, marker, lambda _: None)
    if state == "half published":
        (attempt.directory / marker.files[0].staged).rename(ledger.outdir / marker.files[0].path)
    if state == "committed beside a late attempt":
        late = Attempt(ledger, offset_range, plan.plan_id, lambda _: None)
        late.begin()
        late.commit(stage_range(late, plan, offset_range))


@examples(20)
@given(st.lists(st.sampled_from(STATES), min_size=len(RANGES), max_size=len(RANGES)))
def test_a_ledger_in_any_state_is_rolled_forward_to_what_was_committed(states: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ledger = make_ledger(Path(directory) / "alerts", PLANS[0])
        ledger.freeze(PLANS[1], SCHEMA)
        for offset_range, state in zip(RANGES, states, strict=True):
            _bring_to(ledger, offset_range, state)
        committed = [r for r, state in zip(RANGES, states, strict=True) if state not in {"open", "begun", "staged"}]
        expected = sorted(
            (offset_range.partition, offset) for offset_range in committed for offset in alerts_of(offset_range)
        )
        before = summarise(ledger)
        for _ in range(2):
            rolled = roll_forward(ledger, ledger.plans())
            assert read_places(ledger) == expected
            assert ledger.staged() == []
            assert summarise(ledger) == before
        assert rolled == 0
        assert [marker.range for marker in ledger.markers(ledger.plans())] == committed
        assert before.summary.alerts == len(expected)
        assert before.missing_offsets == sum(len(r) for r in RANGES) - sum(len(r) for r in committed)
        for partition in (0, 4):
            whole = [(r.start, r.end) for r in RANGES if r.partition == partition]
            taken = [(r.start, r.end) for r in committed if r.partition == partition]
            assert before.missing.get(partition, []) == subtract(whole, taken)
        for plan in PLANS:
            for offset_range in plan.ranges:
                transfer(ledger, plan, offset_range)
        assert read_places(ledger) == sorted(places(PLANS[0]) + places(PLANS[1]))


def test_a_plan_never_has_the_id_of_an_earlier_one(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLANS[0])
    twin = make_plan(RANGES[2:], generation=2)
    twin.__dict__["plan_id"] = PLANS[0].plan_id
    with pytest.raises(LedgerError, match="id"):
        ledger.freeze(twin, SCHEMA, [plan.plan_id for plan in ledger.plans()])
    assert len(ledger.plans()) == 1


def test_staging_that_no_plan_knows_is_removed(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLANS[0])
    for plan in (PLANS[0].plan_id, PLANS[1].plan_id, "x"):
        for name in ("x", "00000-1-2-3", "-", f"{RANGES[3].name}-0123", f"{RANGES[0].name}-0123.doomed"):
            (ledger.staging_path / plan / name).mkdir(parents=True)
    assert len(ledger.staged()) == 15
    assert roll_forward(ledger, ledger.plans()) == 0
    assert ledger.staged() == []
    assert [path.name for path in ledger.staging_path.iterdir()] == [PLANS[0].plan_id]


def test_staging_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLANS[0])
    shutil.rmtree(ledger.staging_path)
    create_ledger(ledger)
    roll_forward(ledger, ledger.plans())
    transfer(ledger, PLANS[0], RANGES[0])
    assert read_places(ledger) == places(make_plan(RANGES[:1]))


def test_a_plan_is_hashed_as_often_with_ten_ranges_as_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = [OffsetRange(0, start, start + 5) for start in range(0, 50, 5)]
    ledger = make_ledger(tmp_path / "alerts", make_plan(ranges))
    for offset_range in ranges:
        transfer(ledger, make_plan(ranges), offset_range)
    hashed = []

    def count(content: dict[str, Any]) -> str:
        hashed.append(content)
        return checksum(content)

    monkeypatch.setattr("fink_dask.ledger.records.checksum", count)
    plans = ledger.plans()
    for _ in range(2):
        assert len(list(ledger.markers(plans))) == 10
    # Once to see that it is as it was written, and once for its id.
    assert len([content for content in hashed if "identity" in content]) == 2
    assert pickle.loads(pickle.dumps(plans)) == plans


def test_a_plan_comes_back_as_it_was_frozen(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLANS[0])
    ledger.freeze(PLANS[1], SCHEMA)
    assert Ledger(ledger.outdir).plans() == PLANS
    assert ledger.schema(IDENTITY) == SCHEMA


def test_a_schema_that_was_changed_or_lost_is_refused(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLANS[0])
    (path,) = ledger.path.glob("schema-*.avsc")
    path.write_text(SCHEMA.text.replace("double", "float"))
    with pytest.raises(LedgerError, match=" changed"):
        ledger.schema(IDENTITY)
    path.unlink()
    with pytest.raises(LedgerError, match="lacks"):
        ledger.schema(IDENTITY)


def test_a_users_files_are_not_mixed_with_a_dataset(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "alerts")
    ledger.outdir.mkdir()
    (ledger.outdir / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="empty"):
        create_ledger(ledger)
    assert list(tmp_path.iterdir()) == [ledger.outdir]


@pytest.mark.parametrize("name", ["alerts", "alerts.fink"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StorageError, match=f"/{name} "):
        check_outdir(Ledger(tmp_path / "alerts"))


def test_a_directory_whose_name_is_no_text_is_refused_before_anything_is_planned(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="UTF-8") as caught:
        check_outdir(Ledger(tmp_path / os.fsdecode(b"alerts\xff")))
    assert str(caught.value).isascii()


@pytest.mark.parametrize("inside", ["alerts/year=2026", "alerts.fink/more", "alerts.fink/staging/deep/down"])
def test_a_dataset_is_not_put_inside_another_one(tmp_path: Path, inside: str) -> None:
    make_ledger(tmp_path / "alerts", PLANS[0])
    with pytest.raises(StorageError, match="is inside"):
        check_outdir(Ledger(tmp_path / inside))


def test_a_directory_that_is_read_only_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))  # root would be let in

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        create_ledger(Ledger(tmp_path / "alerts"))


def test_what_may_not_be_written_is_the_directory_and_no_file_of_a_passing_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (staged, dataset) = (tmp_path / "staged", tmp_path / "dataset")
    staged.mkdir()
    dataset.mkdir()
    forbidden = {dataset}
    monkeypatch.setattr(
        os, "access", lambda place, mode: mode != os.W_OK or Path(place) not in forbidden
    )  # unlike root
    refused = PermissionError(errno.EACCES, "Permission denied", str(staged / ".x"), None, str(dataset / "new" / "x"))
    assert str(storage_error(refused, tmp_path)).endswith(f" {dataset}: Permission denied")
    forbidden.clear()
    unreadable = PermissionError(errno.EACCES, "Permission denied", str(staged / "marker"))
    assert str(storage_error(unreadable, tmp_path)) == f"Permission denied: {staged / 'marker'}"


def test_what_may_not_be_read_of_a_colleague_s_dataset_is_not_said_to_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "alerts.fink"
    ledger.mkdir()
    (ledger / "marker").touch()
    mine = {(ledger, os.X_OK)}
    monkeypatch.setattr(os, "access", lambda place, mode: (Path(place), mode) in mine)  # root would be let in
    unreadable = PermissionError(errno.EACCES, "Permission denied", str(ledger / "marker"))
    assert str(storage_error(unreadable, tmp_path)) == f"Permission denied: {ledger / 'marker'}"
    mine.clear()
    assert str(storage_error(unreadable, tmp_path)) == f"can't read {ledger}: Permission denied"


def test_a_marker_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLANS[0])
    ledger.marker_path(RANGES[0]).mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        ledger.marker(RANGES[0], PLANS[0].plan_id)


def test_a_ledger_that_was_not_used_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "down" / "alerts")
    made = create_ledger(ledger)
    assert create_ledger(ledger) == []
    remove_if_unused(ledger, made)
    assert list(tmp_path.iterdir()) == []
    made = create_ledger(ledger)
    ledger.freeze(PLANS[0], SCHEMA)
    remove_if_unused(ledger, made)
    assert ledger.plans() == PLANS[:1]


def test_directories_that_were_there_before_stay(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "mine" / "alerts")
    ledger.outdir.mkdir(parents=True)
    remove_if_unused(ledger, create_ledger(ledger))
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine", ledger.outdir]


def test_a_directory_that_cannot_be_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, real = Ledger(tmp_path / "deep" / "alerts"), Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path == ledger.staging_path:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="quota"):
        create_ledger(ledger)
    assert list(tmp_path.iterdir()) == []


def test_files_that_macos_leaves_everywhere_are_not_a_users(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "alerts")
    ledger.outdir.mkdir()
    for name in (".DS_Store", "._x.parquet"):
        (ledger.outdir / name).write_bytes(b"\0")
    create_ledger(ledger)
    ledger.freeze(PLANS[0], SCHEMA)
    (ledger.plans_path / "._00000001.json").write_bytes(b"\0")
    (ledger.staging_path / ".DS_Store").write_bytes(b"\0")
    assert ledger.plans() == PLANS[:1]
    roll_forward(ledger, ledger.plans())
    transfer(ledger, PLANS[0], RANGES[0])
    other = Ledger(tmp_path / "other")
    (other.outdir / "._thesis").mkdir(parents=True)
    with pytest.raises(StorageError, match="empty"):
        create_ledger(other)
