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
    """One measurement; its ratios to others are formed within one run of the benchmark only.

    Parameters
    ----------
    run : str
        Id of the run of the benchmark.
    topic, contestant, consumers, batchsize, repetition
        As in `Turn`.
    ended : str
        ``in time``, ``limit``, ``frozen``, or ``status N``.
    seconds : float
        From the start of the program to its exit, or to its end at the limit.
    last_file_s : float or None
        From the start to the last change of a data file: without what the program waits for at its end.
    cpu_s : float
        Processor time of the process tree.
    peak_bytes : int
        Memory of the process tree, at its peak, as the sum of proportional set sizes.
    rows : int
        How many rows, or records, came out.
    right : bool
        Whether they are all alerts of the topic, each once.
    checked : str
        What was compared.
    files, dataset_bytes : int
        The data files.
    """

    run: str
    topic: str
    contestant: Contestant
    consumers: int
    batchsize: int
    repetition: int
    ended: str
    seconds: float
    last_file_s: float | None
    cpu_s: float
    peak_bytes: int
    rows: int
    right: bool
    checked: str
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
    """All of one run of the benchmark.

    Parameters
    ----------
    run : dict
        Its id, when it began, its scale and how often it measures.
    machine, versions : dict
        What it ran on, in words.
    topics : dict
        By key, what each topic holds.
    measured : list of Result
        The measurements.
    """

    run: dict[str, Any]
    machine: dict[str, str]
    versions: dict[str, str]
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
    """Return the median, or None of nothing.

    Parameters
    ----------
    values : list of float
        The values.

    Returns
    -------
    float or None
        Their median.
    """
    return statistics.median(values) if values else None


def load(folder: Path) -> Results:
    """Read what `Results.save` wrote.

    Parameters
    ----------
    folder : Path
        Where it is.

    Returns
    -------
    Results
        The results.

    Raises
    ------
    BenchmarkError
        There is nothing, or something else.
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
