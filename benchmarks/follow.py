"""Follow a topic while it is filled: how soon alerts can be read, how soon it ends, and what compaction makes of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

from benchmarks.page import FOLLOWING
from fink_dask.dataset.formats import format_of
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import read_lag
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.feed import Feed
from tests.harness.kafka import KafkaBroker
from tests.harness.oracle import Place, assert_exactly_once, make_topic


@dataclass(frozen=True)
class Case:
    """A topic that is filled, and how it is followed."""

    #: Light alerts that are published.
    alerts: int
    #: How many a second; infinity for as many as the producer can.
    per_second: float
    #: The share of each partition.
    weights: tuple[float, ...]
    #: Of `fink-dask transfer --follow`.
    options: tuple[str, ...]
    #: Its idle time; 0 where it ends otherwise.
    idle_s: float = 0.0


_EVEN = (1.0,) * 10
_UNEVEN = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1)
CASES = {
    "steady": Case(120_000, 4000, _EVEN, ("-nconsumers", "3", "--roll-interval", "5s", "--idle-timeout", "10s"), 10),
    "uneven": Case(120_000, 4000, _UNEVEN, ("-nconsumers", "2", "--roll-interval", "5s", "--idle-timeout", "10s"), 10),
    "loading": Case(400_000, math.inf, _EVEN, ("-nconsumers", "2", "--until-count", "400000")),
    "slow": Case(60, 1 / 3, _EVEN, ("-nconsumers", "2", "--roll-interval", "30s", "--idle-timeout", "45s"), 45),
}


@click.command()
@click.option("--case", "names", type=click.Choice(list(CASES)), multiple=True, help="Measure this one only.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Keep the figures there, such as docs, for the page that python -m benchmarks --draw-only writes.",
)
def main(names: tuple[str, ...], out: Path | None) -> None:
    """Measure each case once, and print a line of JSON for it."""
    if names and out is not None:
        raise click.UsageError("--out keeps all cases: leave --case out")
    measure_following(out, click.echo, names)


def measure_following(out: Path | None, say: Callable[[str], None], names: Sequence[str] = ()) -> None:
    """Measure each case once, with a Kafka of its own, and keep the figures for the page."""
    found: list[dict[str, object]] = []
    for name in names or CASES:
        with tempfile.TemporaryDirectory(prefix="fink-dask-follow-") as folder:
            broker = KafkaBroker(Path(folder) / "kafka", {})
            try:
                broker.start()
                found.append({"case": name, **_measure(CASES[name], broker, Path(folder) / "alerts")})
            finally:
                broker.discard()
        say(json.dumps(found[-1]))
    if out is not None:
        (out / FOLLOWING).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _measure(case: Case, broker: KafkaBroker, outdir: Path) -> dict[str, object]:
    topic, address = "ftransfer_ztf_2026-11-01_1", broker.bootstrap_servers
    make_topic(address, topic, AlertKind.ZTF_LIGHT, len(case.weights))
    arguments = transfer_arguments(broker, topic, outdir, "-partitionby", "time", "--follow", *case.options)
    readable: dict[Place, float] = {}
    known: set[Path] = set()
    worst = before_end = 0
    ledger = Ledger(outdir)
    with Feed(address, topic, case.alerts, case.per_second, case.weights) as feed:
        process = subprocess.Popen(
            [*PROGRAM, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        cpu_s = 0.0
        while process.poll() is None:
            now = time.time()
            for path in [path for path in outdir.rglob("*.parquet") if path not in known]:
                known.add(path)
                partitions, offsets = format_of(path).read_places(path)
                readable.update(dict.fromkeys(zip(partitions.tolist(), offsets.tolist(), strict=True), now))
            if not feed.is_over:
                before_end = len(readable)
            lag = read_lag(ledger, 30)
            worst = max(worst, 0 if lag is None else lag.worst[1])
            cpu_s = max(cpu_s, _cpu_seconds(process.pid))
            time.sleep(0.05)
        ended = time.time()
    if process.returncode != 0:
        sys.exit(process.communicate()[1].decode())
    assert_exactly_once(outdir, feed.values)
    few = Ledger(outdir.with_name("few"))
    compact_s = time.time()
    subprocess.run(
        [*PROGRAM, "compact", str(outdir), str(few.outdir)], env=environment(), capture_output=True, check=True
    )
    compact_s = time.time() - compact_s
    assert_exactly_once(few.outdir, feed.values)
    began, last = min(feed.sent_at.values()), max(feed.sent_at.values())
    ages = sorted(readable[place] - sent for place, sent in feed.sent_at.items())
    return {
        "alerts": case.alerts,
        "loading_s": round(last - began, 1),
        "readable_before_the_loading_ended": round(before_end / case.alerts, 2),
        "freshness_p95_s": round(ages[int(0.95 * len(ages))], 1),
        "end_after_last_alert_and_idle_time_s": round(ended - feed.ended_at - case.idle_s, 1),
        "worst_lag_of_a_partition": worst,
        "files": len(known),
        "files_compacted": sum(1 for _ in few.outdir.rglob("*.parquet")),
        "compact_s": round(compact_s, 1),
        "generations": len(ledger.plans()),
        "cpu_s_per_minute": round(60 * cpu_s / (ended - began), 1),
    }


def _cpu_seconds(pid: int) -> float:
    """Add up the processor time of a process and those that it has started."""
    seconds = 0.0
    try:
        for each in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            times = each.cpu_times()
            seconds += times.user + times.system
    except psutil.Error:
        return 0.0
    return seconds


if __name__ == "__main__":
    main()
