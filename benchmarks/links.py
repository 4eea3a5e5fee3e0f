"""Measure transfers over links that users have: ``python -m benchmarks.links``.

Every row of `benchmarks.link_rows` is measured with this project, Fink's own client and the bare drain, one after the
other through the same link, and with this project without a link. Rows with losses or very long round trips are carried
by a switch between network namespaces, which needs root, the others by a proxy. Rows that are measured are kept after
each contestant; parts may be measured apart, and what was stopped goes on with ``--resume``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click

from benchmarks.contestants import fink_client, fink_dask, raw_drain
from benchmarks.contestants.job import Job
from benchmarks.environments import CACHE, ROOT, Environments, client_environment
from benchmarks.errors import BenchmarkError
from benchmarks.fill import FilledTopic, fill_topic
from benchmarks.link_places import Place, far_place, packet_place
from benchmarks.link_rows import PARTS, ROWS, Row
from benchmarks.link_table import LINKS, links_section
from benchmarks.machine import commit, describe_machine, usable_cores
from benchmarks.measure import Command, measure
from benchmarks.page import write_page
from benchmarks.results import FILE, load
from benchmarks.rows import check_dataset
from benchmarks.session import work_folder
from tests.alerts.made_up import AlertKind
from tests.harness.kafka_install import HarnessError

#: Who, and how; the first one is without a link.
LOOPBACK, DRAIN, MINE, PEER = "loopback", "drain", "fink-dask", "fink-client"
CONTESTANTS: dict[str, Callable[[Job], Command]] = {
    LOOPBACK: fink_dask.command,
    DRAIN: raw_drain.command,
    MINE: fink_dask.command,
    PEER: fink_client.command,
}
_BATCHSIZE = 1000
_REHEARSAL = Row("rehearsal", 0, 0, 0, 2, AlertKind.ZTF_LIGHT, 1.1, 0)
#: It waits for ten seconds at the end of each partition, and decodes some 4,000 alerts a second. More than four times
#: what this project takes for any row; that it has written no file for a while says little over a slow line.
_PEER_LIMIT_S = 300.0


@dataclass(frozen=True)
class Measured:
    """One contestant on one link."""

    #: row, contestant: which.
    row: str
    contestant: str
    #: From the start of the program to its exit; for the drain, from its first connection to its last record.
    seconds: float
    #: ``well``, ``status N``, ``limit`` or ``frozen``.
    ended: str
    #: Whether all alerts of the topic came, each once.
    right: bool
    #: What was compared, or what was wrong.
    checked: str
    #: moved_bytes, connections: over the link: bytes of fetch responses, or of all that TCP has sent where packets are
    #: looked at; and how many connections were made.
    moved_bytes: int
    connections: int
    #: What the topic's batches take in Kafka's files.
    stored_bytes: int


@dataclass
class Found:
    """All that was measured of one commit on one machine."""

    run: dict[str, Any]
    machine: dict[str, str]
    measured: list[Measured] = field(default_factory=list)

    def has(self, row: Row, contestant: str) -> bool:
        """Tell whether something is measured."""
        return any((one.row, one.contestant) == (row.name, contestant) for one in self.measured)

    def add(self, measured: Measured) -> None:
        """Take a measurement; it replaces an earlier one."""
        key = (measured.row, measured.contestant)
        self.measured = [*(one for one in self.measured if (one.row, one.contestant) != key), measured]

    def save(self, out: Path) -> None:
        """Write everything by one rename."""
        aside = out / f".{LINKS}.part"
        aside.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        aside.replace(out / LINKS)


@click.command()
@click.option("--row", "names", type=click.Choice([row.name for row in ROWS]), multiple=True, help="Measure this one.")
@click.option("--part", "parts", type=click.IntRange(1, PARTS), multiple=True, help="Measure these rows; 25 minutes.")
@click.option(
    "--contestant",
    "contestants",
    type=click.Choice(list(CONTESTANTS)),
    multiple=True,
    default=list(CONTESTANTS),
    help="Measure this one only; fink-client takes most of the time.",
)
@click.option("--resume", is_flag=True, help="Keep what is measured of this commit, and measure the rest.")
@click.option("--shared", is_flag=True, help="Say that other programs ran on the machine meanwhile.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "docs", help="Where the results go; docs."
)
def main(
    names: tuple[str, ...], parts: tuple[int, ...], contestants: tuple[str, ...], resume: bool, shared: bool, out: Path
) -> None:
    """Measure fink-dask, Fink's own client and the bare drain through the same links, by turns; 90 minutes in all."""
    signal.signal(signal.SIGTERM, _interrupt)
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - began:7.0f} s  {line}")

    rows = [row for row in ROWS if (not names or row.name in names) and (not parts or row.part in parts)]
    try:
        found = _resumed(out) if resume else _new()
        found.run["is_shared"] = found.run.get("is_shared", False) or shared
        environments = Environments(client_environment())
        with work_folder(found.run["id"]) as work:
            for has_packets in (False, True):
                turns = [
                    (row, contestant)
                    for row in rows
                    for contestant in contestants
                    if row.has_packets == has_packets and not found.has(row, contestant)
                ]
                if turns:
                    _measure_turns(turns, found, environments, work, out, say)
        click.echo(links_section(asdict(found)))
        if (out / FILE).exists():
            write_page(load(out), out)
    except (BenchmarkError, HarnessError) as error:
        sys.exit(f"benchmarks: error: {error}")
    except KeyboardInterrupt:
        click.echo("benchmarks: stopped; --resume goes on", err=True)
        sys.exit(130)


def _new() -> Found:
    identity = {"id": uuid.uuid4().hex[:12], "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    return Found({**identity, "commit": commit(), "cores": usable_cores()}, describe_machine())


def _resumed(out: Path) -> Found:
    """Take up what is there, which must be of the same code."""
    try:
        kept = json.loads((out / LINKS).read_text(encoding="utf-8"))
        found = Found(kept["run"], kept["machine"], [Measured(**one) for one in kept["measured"]])
    except FileNotFoundError:
        return _new()
    except (KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(f"{out / LINKS} holds no results of this benchmark: {error}") from error
    if found.run["commit"] != commit():
        raise BenchmarkError(f"the results in {out} are of another commit: begin again, without --resume")
    return found


def _measure_turns(
    turns: Sequence[tuple[Row, str]],
    found: Found,
    environments: Environments,
    work: Path,
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Measure contestants on rows of one kind of link, with a Kafka of their own."""
    say("starting Kafka")
    with _place(turns[0][0], work / "kafka") as place:
        session = _Session(place, environments, work, CACHE / "logs" / f"links-{found.run['id']}", say)
        session.logs.mkdir(parents=True, exist_ok=True)
        rehearsal = session.run(_REHEARSAL, LOOPBACK)
        if not rehearsal.right:
            raise BenchmarkError(f"the rehearsal failed ({rehearsal.ended}; {rehearsal.checked}): see {session.logs}")
        for row, contestant in turns:
            say(f"{row.name} ({row.line}, {row.consumers} at once): {contestant}")
            measured = session.run(row, contestant)
            found.add(measured)
            found.save(out)
            say(
                f"    {measured.seconds:.1f} s ({measured.ended}; {measured.checked}), "
                f"{measured.moved_bytes / 1e6:.1f} of {measured.stored_bytes / 1e6:.1f} MB, "
                f"{measured.connections} connections"
            )


@contextmanager
def _place(row: Row, folder: Path) -> Iterator[Place]:
    with packet_place(folder) if row.has_packets else far_place(folder) as place:
        yield place
    shutil.rmtree(folder, ignore_errors=True)


class _Session:
    """Runs contestants at a place, one after the other."""

    def __init__(
        self, place: Place, environments: Environments, work: Path, logs: Path, say: Callable[[str], None]
    ) -> None:
        self.logs = logs
        self._place = place
        self._environments = environments
        self._work = work
        self._say = say
        self._topics: dict[str, FilledTopic] = {}

    def run(self, row: Row, contestant: str) -> Measured:
        """Measure one contestant on one row, check what came, and delete it."""
        topic = self._topic(row)
        folder, home = self._work / "turn", self._work / "home"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        home.mkdir(exist_ok=True)
        is_near = contestant == LOOPBACK
        address = self._place.near_address if is_near else self._place.far_address
        job = Job(address, topic, folder, home, self._environments, row.consumers, _BATCHSIZE)
        log = self.logs / f"{row.name.replace(' ', '-')}-{contestant}.log"
        os.sync()  # what the turn before has left to write is not this one's
        limit_s = _PEER_LIMIT_S if contestant == PEER else row.limit_s if row.mbit else _PEER_LIMIT_S
        self._place.set(None if is_near else row)
        before = self._place.moved()
        with self._place.near() if is_near else self._place.far():
            measured = measure(CONTESTANTS[contestant](job), log, limit_s)
        after = self._place.moved()
        self._place.set(None)
        drained = contestant == DRAIN
        rows = raw_drain.check(log, topic) if drained else check_dataset(job.outdir, topic)
        ended = "well" if measured.status == 0 else f"status {measured.status}"
        seconds = raw_drain.seconds(log) if drained and rows.right else measured.seconds
        result = Measured(
            row=row.name,
            contestant=contestant,
            seconds=round(seconds, 2),
            ended=ended if measured.ended == "itself" else measured.ended,
            right=rows.right,
            checked=rows.checked,
            moved_bytes=after[0] - before[0],
            connections=after[1] - before[1],
            stored_bytes=self._place.stored_bytes(topic.name),
        )
        shutil.rmtree(folder)
        return result

    def _topic(self, row: Row) -> FilledTopic:
        if row.topic not in self._topics:
            self._say(f"filling a topic with {row.alerts:,} {row.kind.value} alerts")
            with self._place.near():
                # Alerts of different topics have different numbers.
                first = 10_000_000 * len(self._topics)
                self._topics[row.topic] = fill_topic(
                    self._place.near_address, row.topic, row.kind, row.alerts, first, batch_bytes=row.batch_bytes
                )
        return self._topics[row.topic]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
