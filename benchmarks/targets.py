"""What was asked of this project, and what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.cases import (
    BATCHSIZE,
    BATCHSIZES,
    BEFORE,
    CONSUMERS,
    FINK_CLIENT,
    FINK_DASK,
    KINDS,
    MEMORY,
    PEERS,
    RAW_DRAIN,
    SCALES,
    SPARK,
)
from benchmarks.results import Results

_OF_BEFORE = {"light_l": 0.6, "ztf_l": 0.75, "lsst_l": 0.7}
_TIMES_FINK_CLIENT = {"light_s": 25, "ztf_s": 18, "lsst_s": 20, "light_m": 25, "ztf_l": 18, "lsst_l": 20}
_TIMES_SPARK = 6
_SHARE_OF_DRAIN = {"light_l": 0.4, "ztf_l": 0.45, "lsst_l": 0.4}
_SLOWER_WITH_CONSUMERS = 1.1
_SLOWER_WITH_BATCHES = 1.1
_PEAK_GB = 3.0
_PEAK_RATIO = 1.3
_SIZE_RATIO = {"light": 0.5, "ztf": 0.95, "lsst": 0.78}


@dataclass(frozen=True)
class Target:
    """A target and what became of it."""

    name: str
    wanted: float
    #: Whether the bound is a lower one.
    at_least: bool
    unit: str
    #: The figure; None where something is not measured.
    measured: float | None

    @property
    def reached(self) -> str:
        """``yes``, ``no`` or ``not measured``."""
        if self.measured is None:
            return "not measured"
        return "yes" if (self.measured >= self.wanted if self.at_least else self.measured <= self.wanted) else "no"

    @property
    def bound(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.at_least else '≤'} {self.wanted:g}{self.unit}"

    @property
    def figure(self) -> str:
        """The measured figure in words."""
        return "" if self.measured is None else f"{self.measured:.2f}{self.unit}"


def targets(results: Results) -> Iterator[Target]:
    """List the targets with what a run has measured."""
    for topic, wanted in _OF_BEFORE.items():
        mine, old = (results.value(lambda one: one.cpu_s, topic, who) for who in (FINK_DASK, BEFORE))
        yield Target(
            f"processor seconds over those of before, {label(results, topic)}", wanted, False, "", _over(mine, old)
        )
    for topic, wanted in _TIMES_FINK_CLIENT.items():
        name = f"times as fast as fink-client, {label(results, topic)}"
        yield Target(
            name, wanted, True, "x", _over(results.seconds(topic, FINK_CLIENT), results.seconds(topic, FINK_DASK))
        )
    for topic in (topic for topic, peers in PEERS.items() if SPARK in peers):
        times = _over(results.seconds(topic, SPARK), results.seconds(topic, FINK_DASK))
        yield Target(f"times as fast as Spark, {label(results, topic)}", _TIMES_SPARK, True, "x", times)
    for topic, wanted in _SHARE_OF_DRAIN.items():
        share = _over(best_drain(results, topic), results.seconds(topic, FINK_DASK))
        yield Target(f"share of the bare drain's speed, {label(results, topic)}", wanted, True, "", share)
    where = label(results, "light_m")
    by_consumers = {number: results.seconds("light_m", FINK_DASK, number) for number in CONSUMERS}
    most = max(CONSUMERS)
    name = f"{most} consumers over the best number, {where}"
    yield Target(
        name, _SLOWER_WITH_CONSUMERS, False, "x", _over(_at_least(results, most), _best(by_consumers.values()))
    )
    by_batch = {size: results.seconds("light_m", FINK_DASK, batchsize=size) for size in (*BATCHSIZES, BATCHSIZE)}
    for size in (min(BATCHSIZES), max(BATCHSIZES)):
        name = f"batches of {size:,} over the best size, {where}"
        yield Target(
            name, _SLOWER_WITH_BATCHES, False, "x", _over(_at_least(results, None, size), _best(by_batch.values()))
        )
    yield from _memory(results)
    for topic, peers in PEERS.items():
        if FINK_CLIENT in peers:
            mine, theirs = (
                results.value(lambda one: one.dataset_bytes, topic, who) for who in (FINK_DASK, FINK_CLIENT)
            )
            name = f"size of the dataset over fink-client's, {label(results, topic)}"
            wanted = _SIZE_RATIO[topic.partition("_")[0]]
            yield Target(name, wanted, False, "x", _over(mine, theirs))


def _memory(results: Results) -> Iterator[Target]:
    peaks = {
        topic: results.value(lambda one: one.peak_bytes / 1e9, topic, FINK_DASK, *MEMORY)
        for topic in ("lsst_s", "lsst_l")
    }
    how = f"{MEMORY[0]} consumers, batches of {MEMORY[1]:,}"
    for topic, peak in peaks.items():
        yield Target(f"peak memory, {how}, {label(results, topic)}", _PEAK_GB, False, " GB", peak)
    found = [peak for peak in peaks.values() if peak is not None]
    ratio = max(found) / min(found) if len(found) == len(peaks) else None
    yield Target("the larger of these two over the smaller", _PEAK_RATIO, False, "x", ratio)


def best_drain(results: Results, topic: str) -> float | None:
    """Return the shortest time of the bare drain.

    Returns: seconds; None where it was not measured.
    """
    return _best(one.seconds for one in results.of(topic, RAW_DRAIN) if one.good)


def label(results: Results, topic: str) -> str:
    """Name a topic by what it holds."""
    return label_of(SCALES[results.run["scale"]].alerts[topic], KINDS[topic].value)


def label_of(alerts: int, kind: str) -> str:
    """Name a topic of so many alerts of a kind."""
    survey, _, packet = kind.partition("-")
    return f"{alerts:,} {packet} {survey.upper()}"


def _at_least(results: Results, consumers: int | None, batchsize: int = BATCHSIZE) -> float | None:
    """Return the median time, or of runs that were all stopped the time at which they were: they take longer still."""
    seconds = results.seconds("light_m", FINK_DASK, consumers, batchsize)
    stopped = [one.seconds for one in results.of("light_m", FINK_DASK, consumers, batchsize) if one.ended == "limit"]
    return max(stopped, default=None) if seconds is None else seconds


def _best(seconds: Iterable[float | None]) -> float | None:
    return min((one for one in seconds if one is not None), default=None)


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
