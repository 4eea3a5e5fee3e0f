"""How much memory a consumer may take: bounded in bytes, whatever the batch size and the number of consumers."""

from __future__ import annotations

from dataclasses import dataclass

from fink_dask.errors import SettingsError, parameter
from fink_dask.kafka.line import least_fetch
from fink_dask.settings import BATCH_BYTES, BUFFER_BYTES, QUEUE_BYTES
from fink_dask.units import pluralize

_MIB, _MB = 2**20, 10**6

#: What a process takes before it consumes anything: Python, Dask, Arrow and the compiled decoder.
WORKER_BYTES = 140 * _MIB

#: The same for the process that runs the scheduler together with the one that workers are forked from.
BASE_BYTES = 260 * _MIB

#: What a batch costs, in multiples of its raw bytes: as messages, joined, decoded, and most of it again for the next
#: batch, or for a row group that is being written.
_BATCH_FACTOR = 8

#: What a decoded byte that is held back costs: itself, and the room that its columns have left, or what files say of
#: their row groups.
_BUFFER_FACTOR = 2

#: The part of a range that may be fetched ahead: as much again can come from beyond its end, and is thrown away.
_AHEAD = 1 / 24

LEAST_AHEAD = 2 * _MIB


@dataclass(frozen=True)
class MemoryShare:
    """What one consumer may hold."""

    #: Records that librdkafka has fetched ahead.
    queue_bytes: int = QUEUE_BYTES
    #: Raw bytes that are decoded at once.
    batch_bytes: int = BATCH_BYTES
    #: Decoded bytes that are held back to fill row groups.
    buffer_bytes: int = BUFFER_BYTES

    @property
    def total(self) -> int:
        """About how many bytes a consumer takes with this."""
        return self.queue_bytes + _BATCH_FACTOR * self.batch_bytes + _BUFFER_FACTOR * self.buffer_bytes

    def ahead(self, range_bytes: float, record_bytes: int = 0) -> int:
        """Bytes to fetch ahead of what is decoded, for ranges and records of so many bytes."""
        return min(self.queue_bytes, max(LEAST_AHEAD, int(range_bytes * _AHEAD), 2 * least_fetch(record_bytes)))


#: More does not make a transfer faster.
FULL_SHARE = MemoryShare()

#: With less, a consumer would do nothing but small reads and writes.
MIN_SHARE = MemoryShare(queue_bytes=_MIB, batch_bytes=_MIB, buffer_bytes=4 * _MIB)


def share_memory(
    limit: int,
    overhead: int,
    consumers: int,
    full_shares: int,
    remedy: str | None = None,
    asked: int | None = None,
) -> MemoryShare:
    """Divide memory among consumers.

    `limit`: bytes that these processes together may take.
    `overhead`: what they take before they consume anything.
    `full_shares`: how many consumers may get `FULL_SHARE`; more of them share what these would have.
    `remedy`: what to tell the user to do where the limit is too low; by default what a local transfer can do.
    `asked`: how many consumers the user has asked for, where there are more that prepare a range meanwhile.
    Raises SettingsError if the limit is too low for so many consumers.
    """
    needed = overhead + consumers * MIN_SHARE.total
    if limit < needed:
        asked = consumers if asked is None else asked
        fewer = f", or fewer {parameter('nconsumers')}" if asked > 1 else ""
        mine = f"give a larger {parameter('memory_limit')}{fewer}"
        has = f"{limit // _MB:,} MB" if limit >= _MB else pluralize(limit, "byte")
        raise SettingsError(
            f"{has} of memory is too little for {asked:,} consumer{'s' * (asked > 1)}, which "
            f"{'take' if asked > 1 else 'takes'} {-(-needed // _MB):,} MB at least: {remedy or mine}"
        )
    # Whatever is left above the least is shared equally, so that the total never exceeds the limit.
    room = FULL_SHARE.total - MIN_SHARE.total
    more = min(limit - overhead, full_shares * FULL_SHARE.total) // consumers - MIN_SHARE.total
    more = max(0, min(more, room))
    return MemoryShare(
        *(
            least + (full - least) * more // room
            for full, least in (
                (FULL_SHARE.queue_bytes, MIN_SHARE.queue_bytes),
                (FULL_SHARE.batch_bytes, MIN_SHARE.batch_bytes),
                (FULL_SHARE.buffer_bytes, MIN_SHARE.buffer_bytes),
            )
        )
    )
