"""``docs/benchmarks.md``, made from the results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.cases import (
    BATCHSIZE,
    BEFORE,
    FINK_CLIENT,
    FINK_DASK,
    FLINK,
    KINDS,
    MOST_RUNS,
    PEERS,
    READERS,
    SCALES,
    SPARK,
    Contestant,
)
from benchmarks.contestants import fink_client, fink_dask, flink, spark
from benchmarks.figures import BATCHES_FIGURE, CONSUMERS_FIGURE, points
from benchmarks.link_table import LINKS, links_section
from benchmarks.results import Results, middle
from benchmarks.targets import best_drain, label, label_of, targets

PAGE = "benchmarks.md"
#: A list of objects with the same names, if there is one: the time and the memory that planning many ranges takes.
RANGES = "benchmarks-ranges.json"
#: The same of topics that are followed while they are filled.
FOLLOWING = "benchmarks-following.json"
#: What the stages of transfers take, today and before.
STAGES = "benchmarks-stages.json"
#: The programs whose times are compared, and what they are called there.
_COMPARED: dict[Contestant, str] = {
    FINK_DASK: "fink-dask",
    BEFORE: "before",
    FINK_CLIENT: "fink-client",
    SPARK: "Spark",
    FLINK: "Flink",
}
_SMALL = "\n**This is the small benchmark: a rehearsal, whose figures mean nothing.**\n"


def write_page(results: Results, out: Path) -> None:
    """Write the page beside the results."""
    ranges, following, links, stages = (
        json.loads((out / name).read_text()) if (out / name).exists() else []
        for name in (RANGES, FOLLOWING, LINKS, STAGES)
    )
    (out / PAGE).write_text(page(results, ranges, following, links or {}, stages or {}), encoding="utf-8")


def page(
    results: Results,
    ranges: Sequence[dict[str, Any]] = (),
    following: Sequence[dict[str, Any]] = (),
    links: Mapping[str, Any] = MappingProxyType({}),
    stages: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Say everything that was measured, in Markdown.

    `following`: how topics were followed that were being filled.
    `links`: what was measured over slow, far and lossy links.
    `stages`: what the stages of transfers take.
    """
    run, scale = results.run, SCALES[results.run["scale"]]
    cores, limit_s = run["cores"], f"{scale.limit_s:g} s"
    disk, wait = f"{scale.free_bytes / 1e9:.0f} GB", f"{fink_client.MAX_TIMEOUT_S} s"
    silence = f"{fink_client.FROZEN_AFTER_S} s"
    memory, figure_limit = spark.DRIVER_MEMORY.removesuffix("g"), _figure_limit(results)
    heap, sorting = flink.HEAP.removesuffix("g"), flink.SORTING.removesuffix("g")
    mine = fink_dask.OPTIONS.format(consumers=cores, batchsize=BATCHSIZE)
    theirs = fink_client.OPTIONS.format(consumers=cores, batchsize=BATCHSIZE)
    return f"""\
# Benchmarks

`make bench` makes this page; it needs Java and Maven, {disk} of disk and more than an hour. It starts Kafka, fills its
topics with made-up alerts, and measures fink-dask, Fink's own client, Spark, Flink and drains of Kafka by turns, on
one machine and in one run (`{run["id"]}`, {run["date"]}). Ratios compare figures of that run only.
{"" if scale.name == "full" else _SMALL}
## Targets

{table(("target", "bound", "measured", "reached"), ([t.name, t.bound, t.figure, t.reached] for t in targets(results)))}

## Times

Seconds from the start of the program to its exit: the median of {run["runs"]} runs, and of
{min(run["runs"], MOST_RUNS[FINK_CLIENT])} of fink-client and the engines, with the shortest and the longest in
brackets; for the bare drain, the best of its runs. Kafka runs on the same {cores} cores. Blanks were not measured.

{_times(results)}

At the end of each partition fink-client waits for {wait} before it moves on to the next, and its users wait with it.
The time until its last file was written: {_last_files(results)}.

## Processor time, memory and files

Medians, for the whole tree of processes. Processor time is the kernel's account of all processes that have ended
(`wait4`). Memory is the peak of the summed proportional set size (PSS: memory that processes share counts once among
them), sampled five times a second, or as often as takes 5 % of a core. Kafka is not included.

{table(("alerts", "program", "CPU s", "peak GB", "files", "dataset MB", "correct"), _resources(results))}

"Correct" means that the dataset was read again and compared with what was published: every id once, and for fink-dask
every partition and offset once; for the bare drain, the numbers of records and of bytes.

## Consumers and batch size

{_caption(results)}

![Time against the number of consumers]({CONSUMERS_FIGURE})

![Time against the batch size]({BATCHES_FIGURE})

{table(("fink-dask", "seconds"), _curve(results, "consumers"))}

{table(("fink-dask", "seconds"), _curve(results, "batchsize"))}
{_stages(stages)}{_ranges(ranges)}{_following(following)}{links_section(links)}
## How it was measured

| what | which |
| --- | --- |
{_lines(results.machine)}
{_lines(results.versions)}

- **Topics.** {_topics(results)}. Ten partitions, chosen at random; three nights; no compression.
- **Alerts.** Made up by fink-dask, with the schemas of Fink's packets. A pool of several hundred to several thousand is
  encoded, and every copy gets its own ids, low mantissa bits, last digits and cutouts, so that Parquet finds no
  repeats. The share of nulls and the lengths of light curves are those of the pool.
- **Page cache.** The topics have just been written and fit into memory, so Kafka reads from the page cache, for all
  programs alike. Before the next run starts, what the last one has left to write is flushed to disk, and its dataset is
  deleted.
- **fink-dask.** `{mine}`. It compiles
  its decoder once after an installation; a rehearsal does that before anything is measured.
- **before.** The same command of fink-dask as it was at the commit above, before its decoder and its start were made
  anew.
- **fink-client.** Unmodified, from PyPI, in an environment of its own:
  `finkctl {theirs}`,
  registered with its default timeout of {wait}, and a new consumer group for each run. Since its version 12,
  `finkctl transfer` replaces `fink_datatransfer`.
- **Spark.** `local[{cores}]`, {memory} GB for the driver, one batch of all offsets, with no limit, `from_avro`,
  `partitionBy("year", "month", "day")` of the alert's time, zstd; everything else is left at its default. The script is
  `benchmarks/jobs/spark_job.py`.
- **Flink.** One process of Java with {cores} slots, {heap} GB of heap, and {sorting} GB beside it to sort rows by day;
  one batch of all offsets; a table of files partitioned by year, month and day of the alert's time, zstd; everything
  else is left at its default. Records are decoded by `AvroRowDeserializationSchema`: Flink's format for tables makes a
  schema of its own from the types of the columns, where null is the first branch of a union, and Fink writes it as the
  last. No bound is set for Flink. The script is `benchmarks/jobs/flink_job.py`.
- **Bare drain.** {cores} processes share the partitions; librdkafka hands over the values; they are joined and dropped.
- **kafkarrow.** One process, which hands over the same values as columns of Arrow; they are counted and dropped.
- **Limits.** A run for the tables is stopped after {limit_s}, a run that only the figures need after {figure_limit},
  and fink-client counts as frozen when it has written no file for {silence}. A run that was stopped, or that did not
  deliver each alert exactly once, is excluded from the medians.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table in Markdown; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(results: Results) -> str:
    """Lay out the times of the programs that were measured at all."""
    shown = [who for who in _COMPARED if any(results.of(topic, who) for topic in PEERS)]
    rows = []
    for topic in PEERS:
        drained = best_drain(results, topic)
        cells = [_seconds(results, topic, who) for who in shown]
        rows.append([label(results, topic), *cells, "" if drained is None else f"{drained:.1f}"])
    return table(("alerts", *(_COMPARED[who] for who in shown), "bare drain"), rows)


def _seconds(results: Results, topic: str, who: Contestant) -> str:
    runs = results.of(topic, who)
    good = [one.seconds for one in runs if one.good]
    bad = len(runs) - len(good)
    failed = f"{bad} of {len(runs)} runs failed" if bad else ""
    if not good:
        return failed
    spread = f" ({min(good):.1f} to {max(good):.1f})" if len(good) > 1 else ""
    return f"{middle(good):.1f}{spread}{'; ' * bool(failed)}{failed}"


def _resources(results: Results) -> Iterable[Sequence[str]]:
    for topic, peers in PEERS.items():
        for who in (FINK_DASK, *peers):
            runs = results.of(topic, who)
            if not runs:
                continue
            cpu, peak, files, size = (
                middle([float(getattr(one, name)) for one in runs]) or 0.0
                for name in ("cpu_s", "peak_bytes", "files", "dataset_bytes")
            )
            right = f"{sum(one.good for one in runs)} of {len(runs)} runs"
            dataset = ["", ""] if who in READERS else [f"{files:,.0f}", f"{size / 1e6:,.0f}"]
            yield [label(results, topic), who, f"{cpu:.1f}", f"{peak / 1e9:.2f}", *dataset, right]


def _last_files(results: Results) -> str:
    found = []
    for topic in PEERS:
        times = [one.last_file_s for one in results.of(topic, FINK_CLIENT) if one.good and one.last_file_s is not None]
        if times:
            found.append(f"{label(results, topic)} {middle(times):.1f} s")
    return ", ".join(found) or "not measured"


def _caption(results: Results) -> str:
    return (
        f"{label(results, 'light_l')} alerts for fink-dask. fink-client gets a subset, because of the time it takes:\n"
        f"{label(results, 'subset')} alerts. One run for each point; where the tables above have more, their median."
        f"{_not_ended(results)}{_not_measured(results)}"
    )


def _not_measured(results: Results) -> str:
    """Say which points of the peer are missing in the figures, such as after a benchmark that was stopped."""
    scale, said = SCALES[results.run["scale"]], []
    for axis, word, wanted in (
        ("consumers", "{} consumers", scale.peer_consumers),
        ("batchsize", "batches of {}", scale.peer_batchsizes),
    ):
        there = {point["x"] for point in points(results, "subset", FINK_CLIENT, axis)}
        said += [word.format(f"{x:,}") for x in wanted if x not in there]
    return f"\nNot measured: fink-client with {', '.join(said)}." if said else ""


def _not_ended(results: Results) -> str:
    said = ""
    for ended, words in (("frozen", "Frozen, and then stopped"), ("limit", "Stopped at its time limit")):
        found = []
        for axis, word in (("consumers", "{} consumers"), ("batchsize", "batches of {}")):
            peer = points(results, "subset", FINK_CLIENT, axis)
            found += [word.format(f"{point['x']:,}") for point in peer if point["ended"] == ended]
        if found:
            said += f"\n{words}: fink-client with {', '.join(found)}."
    return said


def _figure_limit(results: Results) -> str:
    return f"{SCALES[results.run['scale']].figure_limit_s:g} s"


def _curve(results: Results, axis: str) -> Iterable[Sequence[str]]:
    for point in points(results, "light_l", FINK_DASK, axis):
        name = (
            f"{point['x']:,} consumer{'s' * (point['x'] > 1)}" if axis == "consumers" else f"batches of {point['x']:,}"
        )
        yield [name, f"{point['seconds']:.1f}" if point["ended"] == "in time" else point["ended"]]


def _stages(stages: Mapping[str, Any]) -> str:
    if not stages:
        return ""
    rows = stages["rows"]
    figures = [name for name in rows[0] if name not in {"alerts", "kind", "program", "runs"}]
    lines = [
        [label_of(row["alerts"], row["kind"]), row["program"], *(f"{row[name]:,.2f}" for name in figures)]
        for row in rows
    ]
    return f"""
## Stages

`python -m benchmarks.stages` measures this section: the two programs by turns, on topics of which the start is a small
part, at commit {stages["commit"]}; medians of {rows[0]["runs"]}. Microseconds an alert: of each
[stage](performance.md#read-a-profile), by the clock of the threads that take ranges, which share the cores with each
other and with Kafka, so that waiting for a core counts as well; then of the processors, start included.

{table(("alerts", "program", *figures), lines)}
"""


def _ranges(ranges: Sequence[dict[str, Any]]) -> str:
    if not ranges:
        return ""
    head = list(ranges[0])
    return f"""
## Many ranges

`python -m benchmarks.ranges` measures this section: ranges with nothing to read are planned, submitted to two workers
and collected, by one process that is client and scheduler. Its processor time is what a range costs there; seconds
depend on what else the machine does. It should be proportional to the number of ranges, and memory should not.

{table(head, ([str(row[name]) for name in head] for row in ranges))}
"""


def _following(following: Sequence[dict[str, Any]]) -> str:
    if not following:
        return ""
    figures = [name for name in following[0] if name != "case"]
    rows = [[name.replace("_", " "), *(str(case[name]) for case in following)] for name in figures]
    return f"""
## Following

Topics of ten partitions that are filled while they are followed; one run each. `benchmarks/follow.py` has the speeds
and options: *steady* and *uneven* get 4,000 alerts a second, *uneven* into partitions whose speeds range from 1 to
1,000; *loading* is as fast as the producer can be, up to `--until-count`; *slow* gets 20 a minute.

{table(("", *(case["case"] for case in following)), rows)}
"""


def _topics(results: Results) -> str:
    said = []
    for key in KINDS:
        if key in results.topics:
            size = results.topics[key]["value_bytes"] / results.topics[key]["alerts"]
            said.append(f"{label(results, key)} ({size / 1e3:.1f} kB each)")
    return "; ".join(said)


def _lines(words: dict[str, str]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in words.items())
