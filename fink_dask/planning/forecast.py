"""Say before a run how much it has to do, about how long that takes, and whether there is room on the disk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from fink_dask.dataset.formats import FORMATS, Layout, Origin
from fink_dask.errors import BrokerError, InterruptedTransferError, StorageError, parameter
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.connection import Connection
from fink_dask.kafka.inspect import Sample
from fink_dask.kafka.line import OF_USE
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.overview import look_at_removal
from fink_dask.kafka.probe import UNKNOWN_LINE, LineSpeed
from fink_dask.kafka.reader import RangeReader
from fink_dask.ledger.outdir import free_bytes
from fink_dask.ledger.records import Plan
from fink_dask.ledger.summary import Summary
from fink_dask.planning.schemas import Target
from fink_dask.progress.events import Bound, Forecast
from fink_dask.settings import BATCHSIZE, KafkaSettings, TransferSettings
from fink_dask.units import format_bytes

#: Seconds that a core takes for an alert and for a byte of one, and a run for its start and its end at least: from what
#: a million light alerts and 7,000 full packets take on two cores with `make bench`.
_ALERT_S = 10e-6

_BYTE_S = 6e-9

_START_S = 1.5

#: How many times as long the start and the end take as loading the program: on a machine that is slow, or busy, that
#: took long as well.
_START_SHARE = 4.0

#: Round trips of a run in which nothing else happens: connecting, planning, and the end.
_TRIPS = 12

#: With so many bytes committed, the dataset itself tells how large its files are.
_TELLING_BYTES = 10 * 2**20

#: The most that is read to find out otherwise.
_SAMPLE_ALERTS = 1000

_SAMPLE_BYTES = 8 * 2**20

#: And for how long, where the line is known; and at most.
_SAMPLE_S = 3.0
_PATIENCE_S = 10.0

#: What is asked for at once where a rate is set.
_SAMPLE_FETCH_BYTES = 2**16

#: What takes less is over before retention matters.
_LONG_S = 30.0


@dataclass(frozen=True)
class Machine:
    """What a run works with, as far as its time depends on that."""

    #: Cores that share the work.
    cores: int
    #: Seconds that the program took to load.
    loaded_s: float = 0.0


def forecast(
    settings: TransferSettings,
    target: Target,
    summary: Summary,
    opened: Sequence[tuple[Plan, OffsetRange]],
    plan: Plan | None,
    machine: Machine,
    samples: bool = False,
    sample: Sample | None = None,
    line: LineSpeed = UNKNOWN_LINE,
) -> Forecast:
    """Estimate what a run has to do.

    `opened`: ranges of earlier plans that are open.
    `samples`: write some alerts to a file to see how large it is, which takes a second; otherwise this is done only
    where there may be too little room on the disk, and a file is taken to be as large as its alerts are in Kafka.
    `sample`: the sizes of records that the plan was made with.
    `line`: what is known of the line to Kafka.
    Returns: an estimate; its seconds are those of the whole run.
    """
    watermarks = target.description.watermarks
    old = [(planned, left) for planned, offset_range in opened for left in left_of(offset_range, watermarks)]
    new = [
        left for offset_range in (plan.ranges if plan is not None else ()) for left in left_of(offset_range, watermarks)
    ]
    ranges = [*(left for _, left in old), *new]
    alerts = sum(map(len, ranges))
    free = free_bytes(settings.outdir)
    known = replace(
        Forecast(alerts, None, None, None, free), round_trip_s=line.round_trip_s, line_bytes_per_s=line.bytes_per_s
    )
    # A new plan comes with an estimate; for those that have begun, the dataset itself tells.
    means = [(len(left), _mean_bytes(planned, summary)) for planned, left in old]
    if any(mean == 0 for _, mean in means) or (new and plan is not None and not plan.estimated_bytes):
        return known  # a guess would be no reason to refuse the disk
    raw_bytes = round(sum(count * mean for count, mean in means)) + (plan.estimated_bytes if plan is not None else 0)
    wire_bytes = round(raw_bytes * _wire_factor(sample) / line.expansion)
    share, file_bytes = 1.0, 0.0
    if summary.raw_bytes >= _TELLING_BYTES:
        share = summary.written_bytes / summary.raw_bytes
    elif raw_bytes and (samples or (free is not None and raw_bytes > free)):
        count = _SAMPLE_ALERTS
        if (rate := sample_rate(settings, line)) is not None:
            count = max(1, min(count, int(_SAMPLE_S * rate * alerts / max(1, wire_bytes))))
        share, file_bytes = _sampled_share(settings, target, ranges, count)
    on_cores = (alerts * _ALERT_S + raw_bytes * _BYTE_S) / max(1, min(machine.cores, len(ranges)))
    most = line.slower_than if line.bytes_per_s is None else line.bytes_per_s
    rates: dict[Bound, float | None] = {"line": most, "limit": settings.kafka.limit_rate}
    of_use = {"line": 1.0, "limit": OF_USE}
    took = {bound: wire_bytes / (rate * of_use[bound]) for bound, rate in rates.items() if rate is not None}
    took["cores"] = on_cores
    slowest = max(took, key=lambda bound: took[bound])
    is_known = line.bytes_per_s is not None or slowest != "cores"
    start_s = max(_START_S, _START_SHARE * machine.loaded_s) + _TRIPS * (line.round_trip_s or 0.0)
    return replace(
        known,
        raw_bytes=raw_bytes,
        written_bytes=round(raw_bytes * share + file_bytes * len(ranges)),
        seconds=start_s + took[slowest],
        start_seconds=start_s,
        wire_bytes=wire_bytes,
        bound_by=slowest if is_known else None,
        bound_bytes_per_s=rates.get(slowest),
        is_most=slowest == "line" and line.is_least,
        is_least=slowest == "line" and line.bytes_per_s is None,
        is_of_before=slowest == "line" and line.is_of_before,
    )


def sample_rate(settings: TransferSettings, line: LineSpeed) -> float | None:
    """Return how fast a few records come, or should; None where that is not known."""
    rates = (line.bytes_per_s, line.slower_than, settings.kafka.limit_rate)
    return min((rate for rate in rates if rate is not None), default=None)


def with_removal(
    found: Forecast, admin: Admin, topic: str, ranges: Iterable[OffsetRange], watermarks: Mapping[int, Watermarks]
) -> Forecast:
    """Say when Kafka may begin to remove what a run has to read, where that is before its end."""
    # Where the first alerts are in the dataset already, others are removed next, and nobody knows when.
    lows = {partition: each.low for partition, each in watermarks.items()}
    heads = sorted({each.partition for each in ranges if each.start <= lows.get(each.partition, -1)})
    if (found.seconds or 0.0) < _LONG_S or not heads:
        return found
    try:
        removal_ms = look_at_removal(admin, topic, heads)
    except BrokerError:
        return found
    left_s = None if removal_ms is None else max(0.0, removal_ms / 1000 - time.time())
    return found if left_s is None or left_s > (found.seconds or 0.0) else replace(found, removal_s=left_s)


def has_room(forecasts: Iterable[Forecast]) -> bool:
    """Tell whether there is room for what is to be written, or nobody can tell."""
    needed, free = _needed_and_free(forecasts)
    return free is None or needed <= free


def require_room(forecasts: Iterable[Forecast], settings: TransferSettings) -> None:
    """Refuse what the disk has no room for, unless that is forced.

    `forecasts`: those of all datasets that will be on the same disk.
    Raises StorageError if there is too little room; it says how much is needed, and how much is free.
    """
    needed, free = _needed_and_free(forecasts)
    if free is None or needed <= free or settings.force:
        return
    raise StorageError(
        f"about {format_bytes(needed)} would be written, but only {format_bytes(free)} is free at {settings.outdir}: "
        f"make room there, choose another {parameter('outdir')}, take less with {parameter('columns')} or "
        f"{parameter('where')}, or begin anyway with {parameter('force', True)}"
    )


def _needed_and_free(forecasts: Iterable[Forecast]) -> tuple[int, int | None]:
    found = list(forecasts)
    # What is not known refuses nothing.
    free = min((each.free_bytes for each in found if each.free_bytes is not None), default=None)
    return sum(each.written_bytes or 0 for each in found), free


def left_of(offset_range: OffsetRange, watermarks: Mapping[int, Watermarks]) -> list[OffsetRange]:
    """Return what Kafka still has of a range: one, or none."""
    low = watermarks[offset_range.partition].low if offset_range.partition in watermarks else 0
    start = max(offset_range.start, low)
    return [OffsetRange(offset_range.partition, start, offset_range.end)] if start < offset_range.end else []


def _mean_bytes(plan: Plan, summary: Summary) -> float:
    read = summary.transferred + summary.filtered + summary.duplicates + summary.quarantined
    return summary.raw_bytes / read if read else plan.estimated_bytes / max(1, sum(map(len, plan.ranges)))


def _wire_factor(sample: Sample | None) -> float:
    """Return how many times as large as its value a record is on the line: its key may hold a schema."""
    if sample is None or not sum(sample.sizes.values()):
        return 1.0
    return sum(sample.wire_sizes.values()) / sum(sample.sizes.values())


def _sampled_share(
    settings: TransferSettings, target: Target, ranges: Sequence[OffsetRange], count: int
) -> tuple[float, float]:
    """Estimate the size of files: write some alerts of the largest range to one.

    Returns: the rows of files as a share of the bytes in Kafka; and the bytes that the files of each range take beside
    their rows, which is most of them where packets are full and a topic is small.
    """
    from fink_dask.ranges.decode import RangeDecoder  # its compiler takes a third of a second, and is rarely needed

    largest = max(ranges, key=len)
    middle = (largest.start + largest.end) // 2
    sample = OffsetRange(largest.partition, middle, min(middle + count, largest.end))
    raw, bad, parts = 0, 0, []
    keys: set[str] = set()
    ends = time.monotonic() + _PATIENCE_S
    connection = open_sample(settings.kafka)
    try:
        decoder = RangeDecoder(target.versions, target.identity, target.partitioning, sample.partition)
        reader = RangeReader(connection, settings.topic, sample, lambda: time.monotonic() > ends)
        for batch in reader.batches(BATCHSIZE, _SAMPLE_BYTES, max_records=decoder.max_records):
            decoded = decoder.decode(batch)
            raw += batch.raw_bytes
            bad += len(decoded.bad)
            parts += [part.batch() for _, part in decoded.parts]
            keys |= {key for key, _ in decoded.parts}
            if raw >= _SAMPLE_BYTES:
                break
    except InterruptedTransferError:  # of what has come until then it is told
        pass
    finally:
        connection.close()
    if not (parts and raw):  # nothing could be read or decoded, or the condition is true of no alert
        return (0.0 if raw and not bad else 1.0), 0.0
    layout = Layout(decoder.file_schema, settings.compression, decoder.records)
    rows = pa.Table.from_batches(parts)
    try:
        rows_bytes, rest_bytes = _file_bytes(target.identity.outformat, layout, sample, rows)
    except OSError:  # no room for temporary files, for instance
        return 1.0, 0.0
    return rows_bytes / raw, rest_bytes * len(keys)


def open_sample(kafka: KafkaSettings) -> Connection:
    """Connect to read a few records: at once, and little ahead, where a rate is set that would have them wait."""
    if kafka.limit_rate is None:
        return Connection(kafka)
    return Connection(replace(kafka, limit_rate=None, queue_bytes=1), fetch_bytes=_SAMPLE_FETCH_BYTES)


def _file_bytes(outformat: str, layout: Layout, sample: OffsetRange, rows: pa.Table) -> tuple[float, float]:
    """Count the bytes that rows take in a file, and those that any file takes beside them: two files tell."""
    with TemporaryDirectory() as directory:
        sizes = []
        few = min(1, rows.num_rows - 1)
        for number, table in enumerate((rows, rows.slice(0, few))):
            path = Path(directory) / str(number)
            file = FORMATS[outformat].create(path, layout, Origin("", "", sample, ""))
            if table.num_rows:
                file.write_table(table)
            file.complete()
            sizes.append(file.file.size)
            file.close()
    of_row = (sizes[0] - sizes[1]) / (rows.num_rows - few)
    return of_row * rows.num_rows, max(0.0, sizes[1] - few * of_row)
