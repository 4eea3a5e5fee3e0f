"""Whatever the order in which attempts and jobs take their steps, a range is in the dataset exactly once."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger import commit
from fink_dask.ledger.commit import MARKER, Attempt, roll_forward
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker
from fink_dask.store.local import LocalStore
from fink_dask.store.newfile import NewFile
from tests.harness.ledgers import make_ledger, make_plan
from tests.ledger.commit_model import TWO_ATTEMPTS, TWO_JOBS, Actors, Disk, Play, job, transitions

RANGE = OffsetRange(0, 0, 1)
PLAN = make_plan([RANGE])
#: What the model's attempts are called in the ledger; in the same order.
NAMES = {"change": "a" * 16, "early": "b" * 16, "late": "c" * 16}
#: Seeds of orders in which, together, each step is taken with each outcome that it can have.
SEEDS = {
    "attempts": "5611 1273 2499 362 2129 1294 1408 3005 1780 188 360 4083 85 275 281 27 417 919 1143 2751",
    "jobs": "97 3461 544 381 3397 2260 624 5310 2386 58 1583 2238 2480 5724 25 399 459 538 767 1052 1162 1273 1489 "
    "1772 2308 2860 2964 3161",
}
CASES = {"attempts": TWO_ATTEMPTS, "jobs": TWO_JOBS}


@pytest.mark.parametrize(
    "actors",
    [
        pytest.param({"early": TWO_ATTEMPTS["early"], "late": TWO_ATTEMPTS["late"]}, id="two attempts"),
        pytest.param({"early": TWO_ATTEMPTS["early"], "job": job}, id="an attempt and a job"),
        pytest.param(TWO_ATTEMPTS, id="two attempts and a job", marks=pytest.mark.kills),
        pytest.param(TWO_JOBS, id="an attempt and two jobs", marks=pytest.mark.kills),
    ],
)
def test_no_order_of_steps_loses_or_doubles_what_is_committed(actors: Actors) -> None:
    for schedule, play, is_new in transitions(actors):
        if is_new:
            assert play.disk.broken_promises() == [], schedule
            assert play.disk.after_roll_forward().is_whole(), schedule


@pytest.mark.parametrize(
    ("case", "seeds"),
    [
        *((case, [int(seed)]) for case, seeds in SEEDS.items() for seed in seeds.split()),
        *(
            pytest.param(case, range(seed, seed + 50), marks=pytest.mark.kills)
            for case in CASES
            for seed in range(10_000, 11_000, 50)
        ),
    ],
)
def test_the_commit_does_what_its_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, seeds: Sequence[int]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    interpose(monkeypatch)
    for seed in seeds:
        play_for_real(make_ledger(tmp_path / str(seed) / "alerts", PLAN), CASES[case], seed)


def play_for_real(ledger: Ledger, actors: Actors, seed: int) -> None:
    """Let processes, as threads, take their steps in an order that the seed gives, and hold each against the model."""
    choose, play = random.Random(seed), Play(actors)
    people = {name: Person(REAL[name], ledger, name) for name in actors}
    # Of most orders the interesting part is where nobody takes more than a few steps at once.
    rush = choose.choice([1, 2, 4, 8])
    while play.next:
        name = choose.choice(sorted(play.next))
        for _ in range(choose.randint(1, rush)):
            if name in play.next:
                assert people[name].about_to == play.next[name].split()[0]
                play.advance(name)
                people[name].advance()
                assert seen(ledger) == play.disk.key()
    assert [person.about_to for person in people.values()] == [""] * len(people)
    roll_forward(ledger, [PLAN])
    assert seen(ledger) == play.disk.after_roll_forward().key()
    assert play.disk.after_roll_forward().is_whole()


def seen(ledger: Ledger) -> tuple[object, ...]:
    """Look at the real directories as the model does."""
    disk = Disk()
    for directory in ledger.staged():
        name, dot, doomed = directory.name.rpartition("-")[2].partition(".")
        disk.staged[model_name(name) + dot + doomed] = ((directory / MARKER).exists(), (directory / "file").exists())
    for revision in (0, 1):
        marker = ledger.marker(RANGE, PLAN.plan_id, revision)
        if marker is not None:
            disk.markers[revision] = model_name(marker.attempt)
        if (ledger.outdir / path_of(revision)).exists():
            disk.dataset[revision] = model_name((ledger.outdir / path_of(revision)).read_text())
    return disk.key()


def model_name(attempt: str) -> str:
    """Say what the model calls an attempt."""
    return next(name for name, real in NAMES.items() if real == attempt)


def path_of(revision: int) -> str:
    return f"class=x/{revision}.parquet"


def stage(work: Attempt) -> Marker:
    """Stage one file with the attempt's name in it, for one alert."""
    with NewFile(work.directory / "file") as file:
        file.write(work.name.encode())
        files = work.stage([(file, path_of(work.revision), 1)])
    superseded = tuple(path_of(revision) for revision in range(work.revision))
    return Marker(PLAN.plan_id, RANGE, work.name, 1, 100, files, revision=work.revision, superseded=superseded)


def transfer_for_real(ledger: Ledger, name: str) -> None:
    marker = ledger.marker(RANGE, PLAN.plan_id)
    if marker is None:
        work = Attempt(ledger, RANGE, PLAN.plan_id, lambda _: None, name=NAMES[name])
        work.begin()
        try:
            marker = work.commit(stage(work))
        finally:
            work.clean_up()
    if not commit.is_published(ledger, marker):
        commit.publish(ledger, marker, lambda _: None)


def change_for_real(ledger: Ledger, _: str) -> None:
    roll_forward(ledger, [PLAN])
    if ledger.revisions() or ledger.marker(RANGE, PLAN.plan_id) is None:
        return
    work = Attempt(ledger, RANGE, PLAN.plan_id, lambda _: None, 1, name=NAMES["change"])
    work.begin()
    try:
        work.supersede(stage(work))
    finally:
        work.clean_up()


def roll_forward_for_real(ledger: Ledger, _: str) -> None:
    roll_forward(ledger, [PLAN])


REAL: Mapping[str, Callable[[Ledger, str], None]] = {
    "early": transfer_for_real,
    "late": transfer_for_real,
    "job": change_for_real,
    "other": roll_forward_for_real,
}


class Person(threading.Thread):
    """Somebody at work, who does one operation each time that the test says so."""

    def __init__(self, work: Callable[[Ledger, str], None], ledger: Ledger, name: str) -> None:
        super().__init__(daemon=True)
        #: The operation that comes next; empty at the end.
        self.about_to = ""
        self.is_inside = False
        self.error: BaseException | None = None
        self._arguments = (ledger, name)
        self._work = work
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self.start()
        self._wait()

    def run(self) -> None:
        try:
            self._work(*self._arguments)
        except (LedgerError, StorageError, FileNotFoundError):
            pass  # what the model calls failed
        except BaseException as error:
            self.error = error
        self.about_to = ""
        self._waits.release()

    def advance(self) -> None:
        self._go.release()
        self._wait()

    def stand(self, operation: str) -> None:
        """Wait, in the thread itself, until the test lets it do this."""
        self.about_to = operation
        self._waits.release()
        assert self._go.acquire(timeout=60)

    def _wait(self) -> None:
        assert self._waits.acquire(timeout=60), f"{self.about_to} does not end"
        if self.error is not None:
            raise self.error


def interpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever is a `Person` wait before each operation of the model."""

    def standing(operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def stand(*arguments: Any, **options: Any) -> Any:
            person = threading.current_thread()
            if not isinstance(person, Person) or person.is_inside:
                return real(*arguments, **options)
            person.stand(operation)
            person.is_inside = True
            try:
                return real(*arguments, **options)
            finally:
                person.is_inside = False

        return stand

    of_store = {"begin": "create_staging", "mark": "write_new", "link": "link", "move": "move", "remove": "remove_tree"}
    for operation, name in of_store.items():
        monkeypatch.setattr(LocalStore, name, standing(operation, getattr(LocalStore, name)))
    for operation, name in {"ask": "is_published", "look": "_is_emptied"}.items():
        monkeypatch.setattr(commit, name, standing(operation, getattr(commit, name)))
    for name, operation in {"marker": "marker", "revisions": "revisions", "staged": "list"}.items():
        monkeypatch.setattr(Ledger, name, standing(operation, getattr(Ledger, name)))
    for name in ("rename", "exists", "unlink"):
        monkeypatch.setattr(Path, name, standing(name, getattr(Path, name)))
