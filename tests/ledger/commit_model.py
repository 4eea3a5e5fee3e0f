"""A small model of the commit protocol of `fink_dask.ledger.commit`: what is on the disk, and who does what to it.

Each actor is a generator that yields the name of an operation before it does it, so that anything may happen in
between: a process is as slow as it likes, and one that is never advanced again was killed. An attempt may be that of a
worker which its job has lost, and there may be two jobs at once. `transitions` finds every state that can be reached.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

#: Yields what it is about to do; the text has whatever that depends on, beside the disk.
Actor = Generator[str, None, None]
Actors = Mapping[str, Callable[["Disk"], Actor]]

DOOMED = ".doomed"
#: The attempts, and which marker of the range each would write.
REVISION = {"early": 0, "late": 0, "change": 1}


class FailedError(Exception):
    """What an actor wanted to do was refused, and it has ended."""


@dataclass
class Disk:
    """The directories of one range."""

    #: By the names of staging directories, attempts or these with `DOOMED`: whether a marker is in it, and a file.
    staged: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    #: By revision, the attempt that the range's marker names.
    markers: dict[int, str] = field(default_factory=dict)
    #: By revision, the attempt that wrote the file which has its name in the dataset.
    dataset: dict[int, str] = field(default_factory=dict)

    def key(self) -> tuple[object, ...]:
        """What tells two disks apart."""
        return tuple(tuple(sorted(each.items())) for each in (self.staged, self.markers, self.dataset))

    def has_file(self, name: str) -> bool:
        """Whether a directory of this name has a file."""
        return self.staged.get(name, (False, False))[1]

    def is_published(self, name: str) -> bool:
        """Whether the file of an attempt is in the dataset."""
        return self.dataset.get(REVISION[name]) == name

    def broken_promises(self) -> list[str]:
        """What must never be, at any moment and whoever is killed: the invariants of `fink_dask.ledger.commit`."""
        broken = [f"{name} is seen uncommitted" for at, name in self.dataset.items() if self.markers.get(at) != name]
        committed = [self.markers[revision] for revision in sorted(self.markers)[-2:]]
        if committed and not any(
            self.is_published(name) or self.has_file(name) or self.has_file(name + DOOMED) for name in committed
        ):
            broken.append("what is committed is nowhere")
        return broken

    def after_roll_forward(self) -> Disk:
        """What the next job makes of it, if everybody else was killed."""
        disk = copy.deepcopy(self)
        for _ in roll_forward(disk):
            pass
        return disk

    def is_whole(self) -> bool:
        """Whether the dataset has what counts of the range, once, and nothing is left beside it."""
        last = max(self.markers, default=None)
        return self.dataset == ({} if last is None else {last: self.markers[last]}) and not self.staged


def attempt(disk: Disk, name: str) -> Actor:
    """Transfer the range, as a worker does."""
    yield "marker"
    winner = disk.markers.get(0)
    if winner is None:
        yield "begin"
        disk.staged[name] = (False, True)
        winner = yield from _commit(disk, name)
        yield f"marker that tells {name} whether it is beaten"
        if winner != name:
            yield f"remove {name} as {winner} has won"
            disk.staged.pop(name, None)
    yield f"ask for {winner}"
    if winner in disk.staged:
        yield from _publish(disk, winner)


def job(disk: Disk) -> Actor:
    """Roll the ledger forward, then change what is committed of the range, as `repair` does."""
    yield from roll_forward(disk)
    yield "revisions"
    if 1 in disk.markers:
        return
    yield "marker before the change"
    if 0 not in disk.markers:
        return
    yield "begin"
    disk.staged["change"] = (False, True)
    yield from _commit(disk, "change")
    with suppress(FailedError):
        yield from _publish(disk, "change")
    yield "marker that tells the change whether it is beaten"


def roll_forward(disk: Disk) -> Actor:
    """Publish what is committed, commit what is ready, and remove the rest."""
    yield "revisions"
    last = max(disk.markers, default=0)
    yield f"list up to {last}"
    found = sorted(disk.staged)
    while found:
        yield from _reconcile(disk, found.pop(0), last, f"up to {last}, then {found}")


def _reconcile(disk: Disk, listed: str, last: int, rest: str) -> Actor:
    name, at, mine = listed.removesuffix(DOOMED), listed, False
    yield f"marker that counts, of {listed} {rest}"
    for revision in range(last + 1):
        yield f"marker {revision} of {listed} {rest}"
        mine = disk.markers.get(revision) == name
        if mine:
            break
    if not mine:
        yield f"rename {listed} {rest}"
        if at not in disk.staged:
            return
        at = name + DOOMED
        disk.staged[at] = disk.staged.pop(listed)
        if disk.staged[at][0] and (disk.has_file(at) or disk.is_published(name)):
            yield f"link {at} of {listed} {rest}"
            if at not in disk.staged:
                raise FailedError
            mine = disk.markers.setdefault(REVISION[name], name) == name
            if not mine:
                yield f"marker that {at} has lost to {rest}"
        if not mine:
            yield f"remove {at} {rest}"
            disk.staged.pop(at, None)
            return
    if at != name:
        yield f"rename {at} back {rest}"
        if at not in disk.staged:
            raise FailedError
        disk.staged[name] = disk.staged.pop(at)
    with suppress(FailedError):
        yield from _publish(disk, name, rest)


def _commit(disk: Disk, name: str) -> Generator[str, None, str]:
    yield f"mark {name}"
    if name not in disk.staged:
        yield f"rename the marker of {name}"
        raise FailedError
    disk.staged[name] = (True, disk.staged[name][1])
    yield f"link {name}"
    if name not in disk.staged:
        yield f"marker that tells {name} whether it is beaten, as it can't be linked"
        if disk.markers.get(REVISION[name], name) != name:
            yield f"remove {name} that can't be linked"
        raise FailedError
    disk.markers.setdefault(REVISION[name], name)
    yield f"marker of {name}"
    return disk.markers[REVISION[name]]


def _publish(disk: Disk, name: str, rest: str = "") -> Actor:
    revision = REVISION[name]
    for once_more in (True, False):
        yield f"move {name} {once_more} {rest}"
        if disk.has_file(name):
            disk.staged[name] = (disk.staged[name][0], False)
            disk.dataset[revision] = name
            break
        yield f"exists {name} {once_more} {rest}"
        if disk.is_published(name):
            break
        yield f"exists staged {name} {once_more} {rest}"
        if not (once_more and disk.has_file(name)):
            yield from _account_for(disk, name, rest)
            break
    if revision > 0:
        yield f"unlink what {name} supersedes {rest}"
        disk.dataset.pop(revision - 1, None)
    yield f"marker after that of {name} {rest}"
    if revision + 1 in disk.markers:
        yield f"unlink {name} as it is superseded {rest}"
        disk.dataset.pop(revision, None)
        yield f"marker after the last one {rest}"
    yield f"remove {name} as it is published {rest}"
    disk.staged.pop(name, None)


def _account_for(disk: Disk, name: str, rest: str) -> Actor:
    """Tell a file that somebody else has moved from one that is gone."""
    yield f"look into {name} {rest}"
    if name not in disk.staged or disk.has_file(name):
        raise FailedError
    yield f"exists {name} after all {rest}"
    if not disk.is_published(name):
        yield f"remove {name} of which nothing is left {rest}"
        disk.staged.pop(name, None)
        raise FailedError


#: Whatever two attempts can do to each other while a job changes the range.
TWO_ATTEMPTS: Actors = {
    "early": lambda disk: attempt(disk, "early"),
    "late": lambda disk: attempt(disk, "late"),
    "job": job,
}
#: A job was taken for dead, and another one has begun.
TWO_JOBS: Actors = {"early": lambda disk: attempt(disk, "early"), "job": job, "other": roll_forward}


class Play:
    """The actors at work on a disk, in a given order."""

    def __init__(self, actors: Actors, schedule: tuple[str, ...] = ()) -> None:
        self.disk = Disk()
        self._actors = {name: start(self.disk) for name, start in actors.items()}
        self._done = dict.fromkeys(actors, 0)
        #: What each is about to do; those that have ended are not in it.
        self.next = {name: next(actor) for name, actor in self._actors.items()}
        for name in schedule:
            self.advance(name)

    def advance(self, name: str) -> None:
        """Let one of them do what it is about to do."""
        self._done[name] += 1
        try:
            self.next[name] = next(self._actors[name])
        except (StopIteration, FailedError):
            del self.next[name]

    def key(self) -> tuple[object, ...]:
        """What tells two moments apart."""
        return self.disk.key(), tuple((name, self._done[name], then) for name, then in sorted(self.next.items()))


def transitions(actors: Actors) -> Iterator[tuple[tuple[str, ...], Play, bool]]:
    """Yield each transition between two states: an order of steps, what is there after it, and whether that is new."""
    waiting: deque[tuple[tuple[str, ...], tuple[str, ...]]] = deque([((), tuple(actors))])
    seen = set()
    while waiting:
        schedule, names = waiting.popleft()
        for name in names:
            play = Play(actors, (*schedule, name))
            is_new = play.key() not in seen
            yield (*schedule, name), play, is_new
            if is_new:
                seen.add(play.key())
                waiting.append(((*schedule, name), tuple(play.next)))
