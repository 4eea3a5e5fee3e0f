"""Make the next generation of a plan. Pure: watermarks and earlier plans go in, ranges come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fink_dask.errors import LedgerError, parameter
from fink_dask.kafka.inspect import UNKNOWN_ID
from fink_dask.kafka.offsets import OffsetRange, Watermarks, split
from fink_dask.ledger.records import Identity, Marker, Plan
from fink_dask.settings import SMALLEST_RANGE_BYTES
from fink_dask.units import Moment

#: Bytes that an alert is assumed to have where no sample could be had.
GUESSED_BYTES = 50_000.0

#: By how many times more bytes may have to come for a range than it is planned to hold: all of them come again where it
#: is tried again, but smaller ranges make smaller files.
_WIRE_FACTOR = 4


@dataclass(frozen=True)
class Sizing:
    """How large to make ranges."""

    #: The most raw bytes of a range.
    range_bytes: int
    #: Ranges that are consumed at once; there should be a few for each.
    nconsumers: int
    #: Estimated bytes of a record's value in each partition.
    mean_bytes: Mapping[int, float]
    #: The same of all that Kafka sends for a record: its key may hold a schema, which is larger than an alert.
    wire_bytes: Mapping[int, float] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether any partition has yielded a sample."""
        return bool(self.mean_bytes)

    def of(self, partition: int) -> float:
        """Bytes of a record in `partition`; the mean of the others where it yielded no sample."""
        return _mean(self.mean_bytes, partition) or GUESSED_BYTES

    def weight(self, partition: int) -> float:
        """Bytes that a record of `partition` takes of a range's: as much as it is, or much less than has to come."""
        return max(self.of(partition), (_mean(self.wire_bytes, partition) or 0.0) / _WIRE_FACTOR)


@dataclass(frozen=True)
class PlannedWindow:
    """What a plan records of the time that was asked for; see `Plan`."""

    #: The first offset of that time in each partition.
    begins: tuple[tuple[int, int], ...] = ()
    #: The time of the first alerts that are left out.
    until: str | None = None


class Generations:
    """What the next plan has to know of those before it: of a topic that is followed for months, tens of thousands."""

    def __init__(self, plans: Iterable[Plan] = ()) -> None:
        #: The ids of all of them.
        self.ids: set[str] = set()
        #: How many there are; ids of 8 digits may be the same.
        self.count = 0
        #: How many schemas the last one names beside the first.
        self.more_schemas = 0
        for plan in plans:
            self.add(plan)

    def add(self, plan: Plan) -> None:
        """Take note of the next one."""
        self.count += 1
        self.more_schemas = len(plan.identity.more_schemas)
        self.ids.add(plan.plan_id)


def window_to_plan(
    identity: Identity, is_first: bool, watermarks: Mapping[int, Watermarks], until: Moment | None
) -> PlannedWindow:
    """Find what the next plan records of the time that was asked for."""
    begins = []
    if is_first and identity.since is not None:
        begins = [(partition, marks.begin) for partition, marks in sorted(watermarks.items())]
    return PlannedWindow(tuple(begins), None if until is None else until.utc)


def spans_to_plan(
    watermarks: Mapping[int, Watermarks], planned: Mapping[int, int], topic: str
) -> dict[int, tuple[int, int]]:
    """Find what each partition holds that no plan covers yet, as ``[start, end)``.

    Raises LedgerError if a partition holds less than was planned: it was truncated, or the topic was made anew.
    """
    for partition, end in sorted(planned.items()):
        stable = watermarks[partition].last_stable_offset if partition in watermarks else 0
        if stable < end:
            raise LedgerError(
                f"the partition ends at {stable}, but {end} was planned: the topic was truncated or made anew since; "
                f"use another {parameter('outdir')}, or {parameter('restart', True)}",
                topic,
                partition,
            )
    return unplanned(watermarks, planned)


def unplanned(watermarks: Mapping[int, Watermarks], planned: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Find what each partition holds and is wanted after its `planned_ends`, as ``[start, end)``."""
    spans = {
        partition: (max(_next(partition, marks, planned), marks.low), marks.end)
        for partition, marks in sorted(watermarks.items())
    }
    return {partition: (start, end) for partition, (start, end) in spans.items() if end > start}


def _next(partition: int, marks: Watermarks, planned: Mapping[int, int]) -> int:
    """Return the first offset that is not planned; the first plan says where the time that was asked for begins."""
    return planned.get(partition, 0 if planned else marks.begin)


def removed_heads(watermarks: Mapping[int, Watermarks], planned: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Find what Kafka has removed from each partition after its `planned_ends`, as ``[start, end)``.

    This is planned as well, in a range of its own, whose marker then declares it lost.
    """
    heads = {
        partition: (_next(partition, marks, planned), min(marks.low, marks.end))
        for partition, marks in sorted(watermarks.items())
    }
    return {partition: (start, end) for partition, (start, end) in heads.items() if end > start}


def planned_ends(plans: Iterable[Plan]) -> dict[int, int]:
    """Find the offset after the last planned one, for each partition that was planned, or is of another time so far."""
    plans = list(plans)
    ends: dict[int, int] = dict(plans[0].begins) if plans else {}
    for plan in plans:
        for offset_range in plan.ranges:
            ends[offset_range.partition] = max(ends.get(offset_range.partition, 0), offset_range.end)
    return ends


def next_plan(
    generation: int,
    identity: Identity,
    spans: Mapping[int, tuple[int, int]],
    sizing: Sizing,
    room: int | None,
    heads: Mapping[int, tuple[int, int]] | None = None,
    window: PlannedWindow = PlannedWindow(),
) -> Plan | None:
    """Cut what is not planned yet into ranges.

    `room`: how many more alerts the dataset may take. An offset holds one alert or none, so a plan of that many offsets
    never takes too many; where it takes too few, the next generation goes on from there.
    `heads`: what is already gone from each partition: no alerts, so it takes no room.
    Returns None when there is nothing to plan.
    """
    spans = _within(spans, room)
    counts = {partition: end - start for partition, (start, end) in spans.items()}
    total_bytes = sum(count * sizing.of(partition) for partition, count in counts.items())
    share = sum(count * sizing.weight(partition) for partition, count in counts.items()) / (2 * sizing.nconsumers)
    target = min(sizing.range_bytes, max(share, SMALLEST_RANGE_BYTES))
    ranges = [OffsetRange(partition, start, end) for partition, (start, end) in (heads or {}).items()]
    for partition, (start, end) in sorted(spans.items()):
        most = max(1, int(target / sizing.weight(partition)))
        pieces = -(-(end - start) // most)
        ranges += split(partition, start, end, -(-(end - start) // pieces))
    if not ranges:
        return None
    estimated_bytes = round(total_bytes) if sizing.is_known else 0
    return Plan(generation, identity, tuple(sorted(ranges)), estimated_bytes, window.begins, window.until)


def alerts_at_most(plans: Sequence[Plan], markers: Sequence[Marker], watermarks: Mapping[int, Watermarks]) -> int:
    """Count the most alerts that the dataset can have got once all its plans are committed."""
    committed = {marker.range for marker in markers}
    left = [offset_range for plan in plans for offset_range in plan.ranges if offset_range not in committed]
    return sum(marker.transferred for marker in markers) + still_there(left, watermarks)


def still_there(ranges: Iterable[OffsetRange], watermarks: Mapping[int, Watermarks]) -> int:
    """Count the offsets of ranges that Kafka has not removed."""
    lows = {partition: marks.low for partition, marks in watermarks.items()}
    return sum(
        max(0, offset_range.end - max(offset_range.start, lows.get(offset_range.partition, 0)))
        for offset_range in ranges
    )


def known_topic_id(plans: Sequence[Plan]) -> str:
    """Return the topic's id that the plans agree on, even if a broker could not tell it for a while."""
    known = [plan.identity.topic_id for plan in plans if plan.identity.topic_id != UNKNOWN_ID]
    return known[-1] if known else UNKNOWN_ID


def _mean(sizes: Mapping[int, float], partition: int) -> float | None:
    """Return the size in a partition, or the mean of the others; None where no size is known."""
    if partition in sizes:
        return max(sizes[partition], 1.0)
    return max(sum(sizes.values()) / len(sizes), 1.0) if sizes else None


def _within(spans: Mapping[int, tuple[int, int]], room: int | None) -> dict[int, tuple[int, int]]:
    """Keep the first `room` offsets in plan order."""
    if room is None:
        return dict(spans)
    kept = {}
    for partition, (start, end) in sorted(spans.items()):
        taken = min(end - start, room)
        if taken > 0:
            kept[partition] = (start, start + taken)
            room -= taken
    return kept
