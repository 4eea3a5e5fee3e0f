"""What is measured: topics, contestants, and the turns in which they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tests.alerts.made_up import AlertKind

Contestant = Literal["fink-dask", "before", "fink-client", "spark", "flink", "raw-drain", "kafkarrow"]
FINK_DASK: Contestant = "fink-dask"
#: This project as it was before its hot path was made anew.
BEFORE: Contestant = "before"
FINK_CLIENT: Contestant = "fink-client"
SPARK: Contestant = "spark"
FLINK: Contestant = "flink"
RAW_DRAIN: Contestant = "raw-drain"
KAFKARROW: Contestant = "kafkarrow"
#: Those that read a topic and make no dataset of it.
READERS = (RAW_DRAIN, KAFKARROW)

BATCHSIZE = 1000
CONSUMERS = (1, 2, 4, 8, 16, 32)
BATCHSIZES = (10, 100, 1_000, 10_000, 100_000)
#: The consumers and the batch size with which memory is measured.
MEMORY = (8, 10_000)
#: The topics, in the order of the tables: small, medium and large ones; the last is the peer's in the figures.
KINDS = {
    "light_s": AlertKind.ZTF_LIGHT,
    "light_m": AlertKind.ZTF_LIGHT,
    "light_l": AlertKind.ZTF_LIGHT,
    "ztf_s": AlertKind.ZTF_FULL,
    "ztf_l": AlertKind.ZTF_FULL,
    "lsst_s": AlertKind.LSST_FULL,
    "lsst_l": AlertKind.LSST_FULL,
    "subset": AlertKind.ZTF_LIGHT,
}
#: Who comes beside this project, topic by topic.
PEERS: dict[str, tuple[Contestant, ...]] = {
    "light_s": (FINK_CLIENT,),
    "light_m": (FINK_CLIENT,),
    "light_l": (BEFORE, SPARK, FLINK, RAW_DRAIN, KAFKARROW),
    "ztf_s": (FINK_CLIENT,),
    "ztf_l": (BEFORE, FINK_CLIENT, SPARK, FLINK, RAW_DRAIN, KAFKARROW),
    "lsst_s": (FINK_CLIENT,),
    "lsst_l": (BEFORE, FINK_CLIENT, SPARK, FLINK, RAW_DRAIN, KAFKARROW),
}
#: Of these no more runs are made: a drain is a yardstick, of which the best is as fast as it goes, and the others take
#: minutes for what takes this project seconds.
MOST_RUNS: dict[Contestant, int] = dict.fromkeys((*READERS, FINK_CLIENT, SPARK, FLINK), 2)
#: So many figures of more consumers and other batch sizes make a median.
_SWEEPS = 3


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    name: str
    #: How many alerts each topic holds.
    alerts: dict[str, int]
    #: The topics that fink-client transfers for the tables: it takes more than a minute for each.
    client_topics: tuple[str, ...]
    #: peer_consumers, peer_batchsizes: the points at which the peer is measured for the figures.
    peer_consumers: tuple[int, ...]
    peer_batchsizes: tuple[int, ...]
    #: limit_s, figure_limit_s: when a run of the tables, and a run of the figures, is killed.
    limit_s: float
    figure_limit_s: float
    #: What must be free on the disk.
    free_bytes: int


def _alerts(*counts: int) -> dict[str, int]:
    return dict(zip(KINDS, counts, strict=True))


SCALES = {
    "full": Scale(
        "full",
        _alerts(400_000, 1_000_000, 3_900_000, 6_200, 31_000, 1_400, 7_000, 50_000),
        tuple(PEERS),
        CONSUMERS,
        BATCHSIZES,
        900,
        300,
        40 * 10**9,
    ),
    "small": Scale(
        "small",
        _alerts(20_000, 30_000, 40_000, 500, 600, 150, 200, 5_000),
        ("light_s", "ztf_s", "lsst_s"),
        (2, 16),
        (),
        240,
        240,
        10**10,
    ),
}


@dataclass(frozen=True)
class Turn:
    """One run of one contestant."""

    #: Key of the topic.
    topic: str
    contestant: Contestant
    #: consumers, batchsize: with what; a batch size is nothing to engines and to drains.
    consumers: int
    batchsize: int
    repetition: int
    #: When it is killed.
    limit_s: float

    @property
    def key(self) -> str:
        """Name of the turn, for messages and for going on."""
        return f"{self.topic}/{self.contestant}/{self.consumers}/{self.batchsize}/{self.repetition}"


def turns(scale: Scale, runs: int, cores: int) -> Iterator[Turn]:
    """List all runs in their order: topic by topic, and in each the contestants by turns.

    `runs`: how many times what is a median is measured.
    `cores`: how many cores there are, which everybody uses unless the number of consumers is what is measured.
    """
    seen = set()
    for turn in _all_turns(scale, runs, cores):
        if turn.key not in seen:
            seen.add(turn.key)
            yield turn


def _all_turns(scale: Scale, runs: int, cores: int) -> Iterator[Turn]:
    for topic in KINDS:
        if topic == "subset":
            points = [(consumers, BATCHSIZE) for consumers in scale.peer_consumers]
            points += [(cores, batchsize) for batchsize in scale.peer_batchsizes]
            for consumers, batchsize in points:
                yield Turn(topic, FINK_CLIENT, consumers, batchsize, 0, scale.figure_limit_s)
            continue
        for repetition in range(runs):
            yield Turn(topic, FINK_DASK, cores, BATCHSIZE, repetition, scale.limit_s)
            for peer in PEERS[topic]:
                if repetition >= MOST_RUNS.get(peer, runs):
                    continue
                if peer != FINK_CLIENT or topic in scale.client_topics:
                    yield Turn(topic, peer, cores, BATCHSIZE, repetition, scale.limit_s)
            if (topic == "light_m" and repetition < _SWEEPS) or (topic == "light_l" and repetition == 0):
                for consumers, batchsize in sweep(cores):
                    yield Turn(topic, FINK_DASK, consumers, batchsize, repetition, scale.figure_limit_s)
            if topic in {"lsst_s", "lsst_l"}:
                yield Turn(topic, FINK_DASK, *MEMORY, repetition, scale.limit_s)


def sweep(cores: int) -> list[tuple[int, int]]:
    """List the numbers of consumers and the batch sizes that are compared, one of them varied at a time.

    `cores`: the number of consumers while the batch size is varied.
    """
    return [(consumers, BATCHSIZE) for consumers in CONSUMERS] + [(cores, batchsize) for batchsize in BATCHSIZES]
