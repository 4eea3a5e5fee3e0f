"""A power cut loses no committed alert: every fsync that the guarantee stands on is made, and is needed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Collection
from itertools import groupby
from pathlib import Path

import pytest

from fink_dask.avro.schema import parse_schema
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, roll_forward, staging_of
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Marker, Plan
from fink_dask.store.local import LOCAL
from tests.harness.descriptors import open_below
from tests.harness.ledgers import SCHEMA, make_ledger, make_plan, stage_range, transfer
from tests.harness.powercut import Event, Recorder, after_power_cut

RANGE = OffsetRange(0, 0, 25)
PLAN = make_plan([RANGE])
Disk = dict[Path, bytes | None]


class _PowerCutError(Exception):
    pass


def _whole_job(outdir: Path) -> None:
    transfer(make_ledger(outdir, PLAN), PLAN, RANGE)


def _killed_job_and_next(outdir: Path) -> None:
    """Link the marker and die; the next job builds on what it finds."""
    ledger = make_ledger(outdir, PLAN)

    def die(name: str) -> None:
        if name == "linked":
            raise _PowerCutError

    with pytest.raises(_PowerCutError):
        transfer(ledger, PLAN, RANGE, die)
    create_ledger(ledger)
    roll_forward(ledger, ledger.plans())


def _ready_job_and_next(outdir: Path) -> None:
    """Write the marker and die; the next job finds everything ready for the link."""
    ledger = make_ledger(outdir, PLAN)
    _die_when_ready(ledger)
    create_ledger(ledger)
    roll_forward(ledger, ledger.plans())


def _die_when_ready(ledger: Ledger) -> None:
    def die(name: str) -> None:
        if name == "marked":
            raise _PowerCutError

    attempt = Attempt(ledger, RANGE, PLAN.plan_id, die)
    attempt.begin()
    marker = stage_range(attempt, PLAN, RANGE)
    with pytest.raises(_PowerCutError):
        attempt.commit(marker)


def _violations(ledger: Ledger, disk: Disk, finished: bool) -> list[str]:
    """Check what is left on the disk."""
    found = []
    marker_file = disk.get(ledger.marker_path(RANGE))
    plan_file = disk.get(ledger.plans_path / "00000001.json")
    for name, path in (("plan", ledger.plans_path / "00000001.json"), ("marker", ledger.marker_path(RANGE))):
        if path in disk and not disk[path]:
            found.append(f"a {name} that is torn")
    if plan_file:
        plan = Plan.from_json(json.loads(plan_file)["plan"])
        schema = disk.get(ledger.schema_path(plan.identity))
        if not schema or parse_schema(schema).fingerprint != plan.identity.schema_sha256:
            found.append("a plan without its schema")
    visible = [path for path in disk if path.suffix == ".parquet" and ledger.outdir in path.parents]
    if marker_file is None:
        found += ["rows of a range that is not committed"] if visible else []
        found += ["a finished range that is not committed"] if finished else []
        return found
    if plan_file is None:
        found.append("a marker without its plan")
    marker = Marker.from_json(json.loads(marker_file)["marker"]) if marker_file else None
    for root, file in (
        [] if marker is None else [(ledger.outdir, f) for f in marker.files] + [(ledger.path, marker.quarantine)]
    ):
        staged = staging_of(ledger, marker)
        doomed = staged.with_name(f"{staged.name}.doomed")
        contents = [disk.get(path) for path in (root / file.path, staged / file.staged, doomed / file.staged)]
        if not any(content and hashlib.sha256(content).hexdigest() == file.sha256 for content in contents):
            found.append("a marker without a file that it names")
        if finished and not contents[0]:
            found.append("a finished range without a file")
    return found


def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[[Path], None]) -> tuple[Ledger, list[Event]]:
    recorder = Recorder(tmp_path)
    recorder.attach(monkeypatch)
    outdir = tmp_path / "deep" / "alerts"
    job(outdir)
    recorder.note()
    monkeypatch.undo()
    return Ledger(outdir), recorder.events


def _all_violations(ledger: Ledger, events: list[Event], root: Path, ignored: Collection[int] = ()) -> set[str]:
    found = set()
    for eager in (False, True):
        disks = after_power_cut(root, events, eager, ignored)
        for index, disk in enumerate(disks):
            found.update(_violations(ledger, disk, finished=index == len(disks) - 1))
    return found


JOBS = [_whole_job, _killed_job_and_next, _ready_job_and_next]


@pytest.mark.parametrize("job", JOBS)
def test_no_power_cut_loses_a_committed_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[[Path], None]
) -> None:
    ledger, events = _record(tmp_path, monkeypatch, job)
    assert _all_violations(ledger, events, tmp_path) == set()


def test_no_power_cut_loses_a_committed_alert_where_links_succeed_and_say_they_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def like_nfs(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    monkeypatch.setattr(os, "link", like_nfs)
    ledger, events = _record(tmp_path, monkeypatch, _whole_job)
    assert _all_violations(ledger, events, tmp_path) == set()


def test_no_power_cut_loses_what_the_job_after_a_killed_one_builds_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    recorder.attach(monkeypatch)
    ledger = Ledger(tmp_path / "alerts")
    make_ledger(ledger.outdir, PLAN)
    killed_after = len(recorder.events)
    create_ledger(ledger)
    transfer(ledger, PLAN, RANGE)
    recorder.note()
    monkeypatch.undo()
    # Directories, the schema and the plan are there for the next job to see, but the first one had not synced them;
    # only the content of a file comes before its name.
    ignored = [i for i, event in enumerate(recorder.events[:killed_after]) if event.content is None]
    assert _all_violations(ledger, recorder.events, tmp_path, ignored) == set()


def test_no_power_cut_loses_a_range_that_a_roll_forward_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    recorder.attach(monkeypatch)
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    _die_when_ready(ledger)
    killed_after = len(recorder.events)
    roll_forward(ledger, ledger.plans())
    recorder.note()
    monkeypatch.undo()
    # It was killed as it wrote the marker: of what is staged, only the files were synced.
    staged = f"{(ledger.staging_path / PLAN.plan_id).relative_to(tmp_path)}"
    ignored = [
        index
        for index, event in enumerate(recorder.events[:killed_after])
        if event.name.startswith(staged) and not event.name.endswith(".parquet")
    ]
    assert len(ignored) == 3
    assert _all_violations(ledger, recorder.events, tmp_path, ignored) == set()


def test_every_fsync_of_a_transfer_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, events = _record(tmp_path, monkeypatch, _whole_job)
    by_name: dict[str, list[int]] = {}
    for index, event in enumerate(events):
        if event.synced is not None:
            by_name.setdefault(event.name, []).append(index)
    needless = [name for name, indices in by_name.items() if not _all_violations(ledger, events, tmp_path, indices)]
    assert needless == [], "these can be left out, or the test does not see what they are for"
    assert len(by_name) > 12


@pytest.mark.parametrize("there", [False, True])
def test_a_name_is_given_once(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "target").write_bytes(b"old")
    assert LOCAL.put_new(tmp_path / "target", b"new") is not there
    assert (tmp_path / "target").read_bytes() == (b"old" if there else b"new")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_that_vanished_again_is_no_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", refuse)
    LOCAL.write_new(tmp_path / "source", b"")
    assert not LOCAL.link(tmp_path / "source", tmp_path / "target")


def test_a_file_that_can_not_be_replaced_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_bytes(b"the old one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        LOCAL.replace(target, b"the new one")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_bytes() == b"the old one"


@pytest.mark.parametrize("eager", [False, True])
def test_a_power_cut_leaves_the_old_file_or_the_new_one_and_what_was_replaced_stays_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: bool
) -> None:
    target, recorder = tmp_path / "schemas.json", Recorder(tmp_path)
    recorder.attach(monkeypatch)
    LOCAL.replace(target, b"the old one")
    LOCAL.replace(target, b"the new one")
    recorder.note()
    monkeypatch.undo()
    found = [disk.get(target, b"none") for disk in after_power_cut(tmp_path, recorder.events, eager)]
    assert [content for content, _ in groupby(found)] == [b"none", b"the old one", b"the new one"]


def test_what_is_brought_to_the_disk_leaves_no_open_file(tmp_path: Path) -> None:
    LOCAL.write_new(tmp_path / "file", b"")
    for _ in range(3):
        LOCAL.sync(tmp_path / "file")
        LOCAL.sync(tmp_path)
    assert not open_below(tmp_path)


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    LOCAL.write_new(tmp_path / "file", b"old")
    with pytest.raises(FileExistsError):
        LOCAL.write_new(tmp_path / "file", b"new")


def test_a_file_where_a_directory_is_needed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        LOCAL.make_directory(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        LOCAL.make_directory(tmp_path / "file" / "below")


def test_a_plan_is_frozen_once(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    with pytest.raises(FinkDaskError, match="planned"):
        ledger.freeze(PLAN, SCHEMA)
