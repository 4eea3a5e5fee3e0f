"""One run of the benchmark: Kafka is started and filled, the contestants come by turns, and each result is saved."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cases import FINK_CLIENT, KINDS, READERS, SCALES, Contestant, Turn, turns
from benchmarks.contestants import before, fink_client, fink_dask, flink, kafkarrow, raw_drain, spark
from benchmarks.contestants.job import Job
from benchmarks.environments import CACHE, Environments
from benchmarks.errors import BenchmarkError
from benchmarks.fill import FilledTopic, fill_topic
from benchmarks.machine import describe_machine, describe_versions, usable_cores
from benchmarks.measure import Command, Measured, Stall, measure
from benchmarks.results import Result, Results
from benchmarks.rows import check_dataset, data_files
from tests.alerts.made_up import AlertKind
from tests.harness.kafka import KafkaBroker

COMMANDS: dict[Contestant, Callable[[Job], Command]] = {
    "fink-dask": fink_dask.command,
    "before": before.command,
    "fink-client": fink_client.command,
    "spark": spark.command,
    "flink": flink.command,
    "raw-drain": raw_drain.command,
    "kafkarrow": kafkarrow.command,
}
#: The first transfer after an installation compiles; it is made on a topic of this many alerts, and not counted.
REHEARSAL_ALERTS = 1000
#: Alerts of different topics have different numbers.
_NUMBERS_OF_A_TOPIC = 10_000_000


@dataclass(frozen=True)
class Session:
    """What the turns of a run have in common."""

    bootstrap: str
    #: Where the peers are.
    environments: Environments
    #: A folder for datasets, one at a time.
    work: Path
    #: Where what the contestants print is kept.
    logs: Path
    #: Tells whoever waits what happens.
    say: Callable[[str], None]

    def job(self, topic: FilledTopic, consumers: int, batchsize: int) -> Job:
        """Make a job, in an empty folder; that of the job before is gone."""
        folder = self.work / "turn"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        home = self.work / "home"
        home.mkdir(exist_ok=True)
        return Job(self.bootstrap, topic, folder, home, self.environments, consumers, batchsize)

    def run(self, turn: Turn, topic: FilledTopic, run: str) -> Result:
        """Measure one turn, check what came out, and delete it."""
        job = self.job(topic, turn.consumers, turn.batchsize)
        log = self.logs / f"{turn.key.replace('/', '-')}.log"
        os.sync()  # what the turn before has left to write is not this one's
        # The client's consumers can wait for each other for good; at its end it is silent for some 30 s, not longer.
        stall = Stall(lambda: len(data_files(job.outdir)), fink_client.FROZEN_AFTER_S)
        command = COMMANDS[turn.contestant](job)
        measured = measure(command, log, turn.limit_s, stall if turn.contestant == FINK_CLIENT else None)
        result = _judge(turn, topic, run, job, log, measured)
        shutil.rmtree(job.folder)
        return result


def new_results(scale: str, runs: int, environments: Environments) -> Results:
    """Begin a run of the benchmark.

    `runs`: how many times what is a median is measured.
    """
    now = datetime.now(UTC)
    identity = {"id": uuid.uuid4().hex[:12], "date": f"{now:%Y-%m-%d}", "scale": scale}
    run = identity | {"runs": runs, "cores": usable_cores()}
    return Results(run, describe_machine(), describe_versions(environments))


def run_benchmark(
    results: Results, environments: Environments, only: Sequence[str], out: Path, say: Callable[[str], None]
) -> None:
    """Measure whatever has not been measured.

    `results`: of this run; saved after each measurement.
    `only`: topics or contestants to which it is confined; none for all.
    Raises BenchmarkError: the disk is too full, or Kafka has not taken all alerts.
    """
    scale = SCALES[results.run["scale"]]
    left = [turn for turn in turns(scale, results.run["runs"], results.run["cores"]) if _is_left(turn, results, only)]
    if not left:
        say("everything is measured")
        return
    with work_folder(results.run["id"]) as work:
        if (free := shutil.disk_usage(work).free) < scale.free_bytes:
            raise BenchmarkError(
                f"{free / 1e9:.0f} GB are free on the disk, and {scale.free_bytes / 1e9:.0f} are needed"
            )
        logs = CACHE / "logs" / results.run["id"]
        logs.mkdir(parents=True, exist_ok=True)
        broker = KafkaBroker(work / "kafka")
        try:
            say("starting Kafka")
            broker.start()
            session = Session(broker.bootstrap_servers, environments, work, logs, say)
            rehearse(session)
            filled: dict[str, FilledTopic] = {}
            for number, turn in enumerate(left, start=1):
                if turn.topic not in filled:
                    filled[turn.topic] = fill(session, turn.topic, scale.alerts[turn.topic])
                    results.topics[turn.topic] = asdict(filled[turn.topic])
                what = f"{turn.consumers} at once, batches of {turn.batchsize:,}"
                say(f"[{number}/{len(left)}] {turn.topic}: {turn.contestant}, {what}, run {turn.repetition + 1}")
                result = session.run(turn, filled[turn.topic], results.run["id"])
                results.add(result)
                results.save(out)
                say(describe(result))
        finally:
            broker.discard()


def rehearse(session: Session) -> None:
    """Let this project compile what it compiles once after its installation, on a topic of its own."""
    name = f"ftransfer_ztf_2026-02-24_{REHEARSAL_ALERTS}"
    topic = fill_topic(session.bootstrap, name, AlertKind.ZTF_LIGHT, REHEARSAL_ALERTS, 0)
    result = session.run(Turn("rehearsal", "fink-dask", usable_cores(), 1000, 0, 300), topic, "")
    session.say(f"rehearsal: {describe(result).strip()}")
    if not result.good:
        raise BenchmarkError(f"the rehearsal failed ({result.ended}; {result.checked}): see {session.logs}")


def describe(result: Result) -> str:
    """Say in one line what came out."""
    used = f"{result.cpu_s:.1f} s of processor time, {result.peak_bytes / 1e6:,.0f} MB at the peak"
    rows = f"{result.rows:,} rows: {result.checked}"
    return f"    {result.seconds:.2f} s ({result.ended}), {used}; {rows}"


def _judge(turn: Turn, topic: FilledTopic, run: str, job: Job, log: Path, measured: Measured) -> Result:
    """Put together what was measured and what the dataset is."""
    rows = raw_drain.check(log, topic) if turn.contestant in READERS else check_dataset(job.outdir, topic)
    stats = [path.stat() for path in data_files(job.outdir)]
    ended = "in time" if measured.status == 0 else f"status {measured.status}"
    return Result(
        run=run,
        topic=turn.topic,
        contestant=turn.contestant,
        consumers=turn.consumers,
        batchsize=turn.batchsize,
        repetition=turn.repetition,
        ended=ended if measured.ended == "itself" else measured.ended,
        seconds=round(measured.seconds, 3),
        last_file_s=round(max(stat.st_mtime for stat in stats) - measured.started, 3) if stats else None,
        cpu_s=round(measured.cpu_s, 2),
        peak_bytes=measured.peak_bytes,
        rows=rows.count,
        right=rows.right,
        checked=rows.checked,
        files=len(stats),
        dataset_bytes=sum(stat.st_size for stat in stats),
    )


def fill(session: Session, key: str, alerts: int) -> FilledTopic:
    """Fill the topic of this key; alerts of different topics have different numbers."""
    kind = KINDS[key]
    survey = kind.value.partition("-")[0]
    session.say(f"filling {key}: {alerts:,} {kind.value} alerts")
    number = 1 + list(KINDS).index(key)
    name = f"ftransfer_{survey}_2026-02-24_{number}{alerts:07}"
    filled = fill_topic(session.bootstrap, name, kind, alerts, number * _NUMBERS_OF_A_TOPIC)
    session.say(f"    {filled.value_bytes / 1e6:,.0f} MB, {filled.value_bytes / alerts / 1e3:.2f} kB an alert")
    return filled


def _is_left(turn: Turn, results: Results, only: Sequence[str]) -> bool:
    of_topics, of_contestants = [each for each in only if each in KINDS], [each for each in only if each in COMMANDS]
    is_wanted = turn.topic in (of_topics or KINDS) and turn.contestant in (of_contestants or COMMANDS)
    return is_wanted and not any(result.is_of(turn) for result in results.measured)


@contextmanager
def work_folder(run: str) -> Iterator[Path]:
    """Give the run a folder for Kafka and for datasets, and delete it, and what a killed run has left there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError("another benchmark runs on this machine, which would slow both") from None
        shutil.rmtree(CACHE / "work", ignore_errors=True)
        folder = CACHE / "work" / run
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(CACHE / "work", ignore_errors=True)
