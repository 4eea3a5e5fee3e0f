"""Rehearse a night that is larger than the disk: ``python -m benchmarks.night --gigabytes 20 --disk-gigabytes 5``.

Full LSST packets are published by a loop into a Kafka that keeps a share of the disk. Workers on three hosts, which are
network namespaces, write what is followed to an object store, which is emptied behind them: the ids and offsets of each
file are noted before it is handed over. At the end every offset that Kafka has acknowledged must have been noted once,
with its id, or be in the store. Needs root.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy as np
import psutil
import pyarrow.parquet as pq

from benchmarks.errors import BenchmarkError
from benchmarks.fill import PARTITIONS
from benchmarks.jobs.emptier_job import COLUMNS
from benchmarks.jobs.feed_job import committed_offsets, night_pool
from benchmarks.machine import describe_machine, usable_cores
from benchmarks.processes import descendants, kill_all, resident_bytes
from benchmarks.session import work_folder
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.cli import PROGRAM, environment
from tests.harness.distant import DistantDask, distant_store
from tests.harness.hosts import Host, Network, ensure_hosts
from tests.harness.kafka_install import HarnessError
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.producer import publish_schema
from tests.harness.switch import distant_broker
from tests.harness.topics import create_topic

TOPIC = "ftransfer_lsst_2026-11-01_1"
URL, PREFIX = f"s3://{BUCKET}/night", "night"
#: Of the disk: what Kafka keeps, and how much of that may be ahead of what is committed. What it has to keep beside are
#: two segments of each partition, of a sixth each.
KAFKA_SHARE, SEGMENTS, AHEAD_SHARE = 0.4, 6, 0.7
SAMPLE_S = 2.0
EMPTY_EVERY_S = 10.0
#: A share that counts for nothing.
_RARELY = 0.15
#: How long it may take to transfer what was published until its time was over.
_LATE_S = 600.0
#: What is said of a run while it goes on.
SAY_S = 30.0


@dataclass
class Samples:
    """What was seen while it ran."""

    #: When the first alert was published; 0 before.
    began: float = 0.0
    #: How busy the machine was then.
    machine: Any = None
    #: The most bytes that the whole rehearsal took on the disk.
    disk_bytes: int = 0
    #: The most alerts that were published and not committed.
    lag: int = 0
    #: What was published, and the seconds in which the feed waited until more was committed.
    published_bytes: int = 0
    waited_s: float = 0.0
    #: first_cpu_s, cpu_s: processor time of each role when it began, and at the last look.
    first_cpu_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    #: The most memory of each role.
    peak_bytes: dict[str, int] = field(default_factory=dict)

    def read(self, note: Path) -> int:
        """Take note of what the feed says; returns how many alerts it has published."""
        if not note.exists():
            return 0
        alerts, self.published_bytes, waited_ms = map(int, note.read_text().split())
        self.waited_s = waited_ms / 1000
        return alerts


@click.command()
@click.option("--gigabytes", type=float, default=1, show_default=True, help="What is published, in 10^9 bytes.")
@click.option("--disk-gigabytes", type=float, default=5, show_default=True, help="What all of it may take on the disk.")
@click.option("--rate", type=float, default=0, help="10^6 bytes that are published a second; 0 for what is bearable.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of each worker.")
@click.option("--minutes", type=float, default=60, show_default=True, help="When to publish no more.")
def main(gigabytes: float, disk_gigabytes: float, rate: float, threads: int, minutes: float) -> None:
    """Publish, follow, empty, and account for every alert; prints what it took as JSON, and fails if one is missing."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        ensure_hosts()
        with work_folder("night") as work:
            if shutil.disk_usage(work).free < disk_gigabytes * 1.2e9:
                raise BenchmarkError(f"less than {1.2 * disk_gigabytes:.0f} GB are free on the disk")
            found = rehearse(work, gigabytes * 1e9, round(disk_gigabytes * 1e9), rate * 1e6, threads, minutes * 60)
    except (BenchmarkError, HarnessError) as error:
        sys.exit(f"benchmarks: error: {error}")
    click.echo(json.dumps({**found, "machine": describe_machine()}, indent=1))


def rehearse(
    work: Path, wanted_bytes: float, disk_bytes: int, rate: float, threads: int, limit_s: float
) -> dict[str, object]:
    """Run it all in a folder, and account for every alert."""
    pool = night_pool()
    mean_bytes = len(pool.base) / len(pool)
    alerts = max(len(pool), round(wanted_bytes / mean_bytes))
    for name in ("temporary", "moved", "dask"):
        (work / name).mkdir()
    kept = int(KAFKA_SHARE * disk_bytes / PARTITIONS)
    retention = {
        "log.segment.bytes": str(kept // SEGMENTS),
        "log.retention.bytes": str(kept - 2 * kept // SEGMENTS),
        "log.retention.check.interval.ms": "1000",
        "log.segment.delete.delay.ms": "1000",
    }
    ahead = int(AHEAD_SHARE * (kept - 2 * kept // SEGMENTS) * PARTITIONS)
    with (
        Network(6) as network,
        distant_broker(network.hosts[0], work / "kafka", retention) as (broker, kafka),
        distant_store(network.hosts[1], work / "store") as store,
    ):
        kafka_host, _, client, *workers = network.hosts
        address = kafka.bootstrap_servers
        with kafka_host.inside():
            create_topic(address, TOPIC, PARTITIONS)
            publish_schema(address, TOPIC, json.dumps(avro_schema(AlertKind.LSST_FULL)))
        settings = environment({**store.environment, "TMPDIR": str(work / "temporary")})
        markers = store.folder / "data" / BUCKET / f"{PREFIX}.fink" / "markers"
        with DistantDask(client, workers, work / "dask", settings, threads) as dask:
            follow = [*PROGRAM, "transfer", TOPIC, URL, "--bootstrap-servers", address, "--scheduler", dask.address]
            follow += ["--follow", "--until-count", str(alerts), "--roll-interval", "10s", "--partitionby", "time"]
            feed = ["-m", "benchmarks.jobs.feed_job", address, TOPIC, str(alerts), str(work), str(markers)]
            feed += ["--rate", str(rate), "--ahead", str(ahead)]
            empty = ["-m", "benchmarks.jobs.emptier_job", URL, str(work / "moved"), "--every", str(EMPTY_EVERY_S)]
            programs = {
                "feed": _start(kafka_host, [sys.executable, *feed], work / "feed.log", settings),
                "transfer": _start(client, follow, work / "transfer.log", settings),
                "emptier": _start(client, [sys.executable, *empty], work / "emptier.log", settings),
            }
            roles = {name: [process.pid] for name, process in programs.items()} | dask.pids()
            roles |= {"Kafka": [broker.pid], "store": [store.proxy.pid]}
            try:
                samples = _watch(work, programs, roles, markers, limit_s)
                (work / "moved" / "stop").touch()
                _end(programs, work)
            finally:
                kill_all([process.pid for process in programs.values()])
                for process in programs.values():
                    process.wait()
            seconds = time.monotonic() - samples.began
            verified = _command(client, [*PROGRAM, "verify", URL, "--json"], settings)
            accounted = account(work, store.folder / "data" / BUCKET / PREFIX)
    published = samples.published_bytes
    return {
        "gigabytes": round(published / 1e9, 2),
        **accounted,
        "verify": verified["state"],
        "handed_over": verified["handed_over"],
        "lists_given_again": _lines(work / "moved" / "repeated"),
        "quarantined_or_lost": verified["quarantined"] + verified["lost"],
        "seconds": round(seconds),
        "megabytes_a_second": round(published / 1e6 / seconds, 1),
        **_figures(samples, published / 1e9, seconds, store),
    }


def _watch(
    work: Path,
    programs: Mapping[str, subprocess.Popen[bytes]],
    roles: Mapping[str, list[int]],
    markers: Path,
    limit_s: float,
) -> Samples:
    """Sample until the transfer ends by itself.

    Raises BenchmarkError if it does not in time, or another program ends with an error before.
    """
    samples, started, said = Samples(), time.monotonic(), 0.0
    while programs["transfer"].poll() is None:
        time.sleep(SAMPLE_S)
        now = time.monotonic() - started
        for name, process in programs.items():
            if process.poll() not in {None, 0}:
                raise BenchmarkError(f"{name} ended with {process.returncode}: {_last_words(work / f'{name}.log')}")
        if now > limit_s:
            (work / "stop").touch()
        if now > limit_s + _LATE_S:
            raise BenchmarkError(f"it is not over after {now:.0f} s: {_last_words(work / 'transfer.log')}")
        published = samples.read(work / "published")
        committed = committed_offsets(markers)
        lag = published - committed
        if published and not samples.began:
            samples.began, samples.machine, samples.first_cpu_s = time.monotonic(), psutil.cpu_times(), _cpu_of(roles)
        samples.lag = max(samples.lag, lag)
        samples.disk_bytes = max(samples.disk_bytes, disk_used(work))
        for role, seconds in _cpu_of(roles).items():
            samples.cpu_s[role] = max(samples.cpu_s.get(role, 0.0), seconds)
        for role, roots in roles.items():
            held = resident_bytes(descendants(roots))
            samples.peak_bytes[role] = max(samples.peak_bytes.get(role, 0), held)
        if now > limit_s and programs["feed"].poll() == 0 and not lag:
            programs["transfer"].terminate()  # all that there is is committed, and no more will come
            programs["transfer"].wait(60)
        if now - said >= SAY_S:
            said = now
            click.echo(
                f"{now:6.0f} s  {published:,} published, {committed:,} committed, "
                f"{disk_used(work) / 1e9:.2f} GB on the disk",
                err=True,
            )
    return samples


def _figures(samples: Samples, gigabytes: float, seconds: float, store: ObjectStore) -> dict[str, object]:
    """Say what it took, and what a terabyte in an hour would."""
    cpu_s = {role: value - samples.first_cpu_s.get(role, 0.0) for role, value in samples.cpu_s.items()}
    busy = sum(cpu_s.values()) / seconds / usable_cores()
    now, then = psutil.cpu_times(), samples.machine
    idle = (now.idle + now.iowait - then.idle - then.iowait) / (sum(now[:8]) - sum(then[:8]))
    waited = samples.waited_s / seconds
    bound = "the feed" if waited < _RARELY else "the transfer and its store"
    if idle < _RARELY:
        bound = "the processor" if busy > 1 - 2 * _RARELY else "the processor, which others used too"
    requests = store.wire.requests
    return {
        "bound_by": bound,
        "processor_used": round(busy, 2),
        "processor_idle": round(idle, 2),
        "feed_waited": round(waited, 2),
        "worst_lag_alerts": samples.lag,
        "disk_gigabytes_at_most": round(samples.disk_bytes / 1e9, 2),
        "cpu_s_per_gigabyte": {role: round(value / gigabytes, 2) for role, value in sorted(cpu_s.items())},
        "cores_for_a_terabyte_an_hour": {role: round(value / gigabytes / 3.6, 1) for role, value in cpu_s.items()},
        "memory_megabytes_at_most": {role: round(value / 1e6) for role, value in samples.peak_bytes.items()},
        "requests": dict(requests),
        "requests_a_second_for_a_terabyte_an_hour": round(requests.total() / gigabytes / 3.6),
    }


def account(work: Path, root: Path) -> dict[str, object]:
    """Hold what was moved, and what is still there below `root`, against what was published.

    Raises BenchmarkError if an offset is missing, there twice, or has another alert's id.
    """
    expected = dict(np.load(work / "expected.npz"))
    there = {path.relative_to(root).as_posix(): path for path in root.rglob("*.parquet")}
    rows, names = [], Counter[str]()
    for path in sorted((work / "moved").glob("*.npz")):
        moved = np.load(path)
        for name, part in zip(
            moved["names"], np.split(moved["rows"], np.cumsum(moved["counts"])[:-1], axis=1), strict=True
        ):
            names[str(name)] += 1
            # One that was noted, and not handed over before the end, was noted again or is still there.
            if names[str(name)] == 1:
                rows.append(part)
    left = [path for name, path in there.items() if name not in names]
    for path in left:
        table = pq.ParquetFile(path).read(columns=COLUMNS)
        rows.append(np.stack([table[name].to_numpy() for name in COLUMNS]))
    partitions, offsets, ids = np.concatenate(rows, axis=1)
    for partition, wanted in expected.items():
        chosen = partitions == int(partition)
        order = np.argsort(offsets[chosen])
        if not np.array_equal(offsets[chosen][order], np.arange(len(wanted))):
            raise BenchmarkError(f"partition {partition}: {chosen.sum():,} offsets, {len(wanted):,} were published")
        if not np.array_equal(ids[chosen][order], wanted):
            raise BenchmarkError(f"partition {partition} has alerts in the place of others")
    if len(offsets) != sum(map(len, expected.values())) or len(np.unique(ids)) != len(ids):
        raise BenchmarkError(
            f"{len(offsets):,} alerts, of which {len(np.unique(ids)):,} differ, are not those published"
        )
    return {"alerts": len(offsets), "exactly_once": True, "files_moved": len(names), "files_left": len(left)}


def disk_used(folder: Path) -> int:
    """Add up what the disk holds below a folder; files come and go meanwhile."""
    used, waiting = 0, [folder]
    while waiting:
        with suppress(OSError):
            for path in waiting.pop().iterdir():
                with suppress(OSError):
                    found = path.lstat()
                    used += 512 * found.st_blocks
                    if path.is_dir() and not path.is_symlink():
                        waiting.append(path)
    return used


def _cpu_of(roles: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the processor time of each role, and that of the store's wire, which is this process but for samples."""
    found = {role: sum(map(_cpu_s, descendants(roots))) for role, roots in roles.items()}
    return found | {"store's wire": time.process_time() - time.thread_time()}


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process, and of those of its children that have ended."""
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def _start(host: Host, command: Sequence[str], log: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with host.inside(), log.open("wb") as output:
        return subprocess.Popen(
            command, env=dict(settings), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _end(programs: Mapping[str, subprocess.Popen[bytes]], work: Path) -> None:
    for name, process in programs.items():
        if process.wait(300) not in {0, 128 + signal.SIGTERM}:
            raise BenchmarkError(f"{name} ended with {process.returncode}: {_last_words(work / f'{name}.log')}")


def _command(host: Host, command: Sequence[str], settings: Mapping[str, str]) -> dict[str, Any]:
    with host.inside():
        done = subprocess.run(command, env=dict(settings), capture_output=True, text=True, timeout=600, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return " / ".join([*(line for line in lines if line.startswith("fink-dask: error")), *lines[-2:]])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
