"""The results of one run of the benchmark, saved after every measurement, and read again by whoever draws them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import BATCHSIZE, Contestant, Turn
from benchmarks.errors import BenchmarkError

FILE = "benchmarks.json"


@dataclass(frozen=True)
class Result:
    """One measurement; its ratios to others are formed within one run of the benchmark only."""

    #: Id of the run of the benchmark.
    run: str
    #: As in `Turn`.
    topic: str
    contestant: Contestant
    consumers: int
    batchsize: int
    repetition: int
    #: ``in time``, ``limit``, ``frozen``, or ``status N``.
    ended: str
    #: From the start of the program to its exit, or to its end at the limit.
    seconds: float
    #: From the start to the last change of a data file: without what the program waits for at its end.
    last_file_s: float | None
    #: Processor time of the process tree.
    cpu_s: float
    #: Memory of the process tree, at its peak, as the sum of proportional set sizes.
    peak_bytes: int
    #: How many rows, or records, came out.
    rows: int
    #: Whether they are all alerts of the topic, each once.
    right: bool
    checked: str
    #: files, dataset_bytes: the data files.
    files: int
    dataset_bytes: int

    @property
    def good(self) -> bool:
        """Whether the program ended well and delivered everything."""
        return self.ended == "in time" and self.right

    def is_of(self, turn: Turn) -> bool:
        """Tell whether this is the measurement of a turn."""
        mine = (self.topic, self.contestant, self.consumers, self.batchsize, self.repetition)
        return mine == (turn.topic, turn.contestant, turn.consumers, turn.batchsize, turn.repetition)


@dataclass
class Results:
    """All of one run of the benchmark."""

    #: Its id, when it began, its scale and how often it measures.
    run: dict[str, Any]
    #: machine, versions: what it ran on, in words.
    machine: dict[str, str]
    versions: dict[str, str]
    #: By key, what each topic holds.
    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: list[Result] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write everything by one rename."""
        aside = folder / f".{FILE}.part"
        aside.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        aside.replace(folder / FILE)

    def add(self, result: Result) -> None:
        """Take a measurement; it replaces an earlier one of the same turn."""
        same = ("topic", "contestant", "consumers", "batchsize", "repetition")
        self.measured = [old for old in self.measured if any(getattr(old, n) != getattr(result, n) for n in same)]
        self.measured.append(result)

    def of(
        self, topic: str, contestant: Contestant, consumers: int | None = None, batchsize: int = BATCHSIZE
    ) -> list[Result]:
        """Return the measurements of a contestant on a topic, by default with as many consumers as cores."""
        wanted = (self.run["id"], topic, contestant, consumers or self.run["cores"], batchsize)
        return [
            one for one in self.measured if (one.run, one.topic, one.contestant, one.consumers, one.batchsize) == wanted
        ]

    def seconds(
        self, topic: str, contestant: Contestant, consumers: int | None = None, batchsize: int = BATCHSIZE
    ) -> float | None:
        """Return the median time of the good measurements; None where there is none."""
        return middle([one.seconds for one in self.of(topic, contestant, consumers, batchsize) if one.good])

    def value(
        self,
        get: Callable[[Result], float],
        topic: str,
        contestant: Contestant,
        consumers: int | None = None,
        batchsize: int = BATCHSIZE,
    ) -> float | None:
        """Return the median of anything else of the good measurements; None where there is none."""
        return middle([get(one) for one in self.of(topic, contestant, consumers, batchsize) if one.good])


def middle(values: list[float]) -> float | None:
    """Return the median, or None of nothing."""
    return statistics.median(values) if values else None


def load(folder: Path) -> Results:
    """Read what `Results.save` wrote.

    Raises BenchmarkError: there is nothing, or something else.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measured = [Result(**one) for one in found.pop("measured")]
        return Results(**found, measured=measured)
    except FileNotFoundError:
        raise BenchmarkError(f"there are no results in {folder}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(f"{path} holds no results of this benchmark: {error}") from error
