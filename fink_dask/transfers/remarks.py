"""What a user is told once of the line to Kafka: that it is full, and that Kafka holds the transfer back."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fink_dask.kafka.offsets import Range
from fink_dask.transfers.events import Note, RangeProgress
from fink_dask.units import counted

#: Seconds for which a range waits before that is worth a word.
_LONG_S = 5.0


class Remarks:
    """Remembers what was said."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, Range], float] = {}
        self._reading: set[tuple[str, Range]] = set()
        self._is_full = self._is_throttled = False

    def of(self, progress: RangeProgress, is_limited: bool = False) -> Iterator[Note]:
        """Return what there is to say, now that a range has reported; the user may have set a limit to the rate."""
        now, key = time.monotonic(), (progress.topic, progress.range)
        if progress.waits:
            since = self._waiting.setdefault(key, now)
            # Where nothing has arrived, it may be that Kafka is not reached; and a limit may be what is waited for.
            if self._reading and not is_limited and not self._is_full and now - since > _LONG_S:
                self._is_full = True
                yield Note(
                    f"the line is full: {counted(len(self._reading), 'range')} at once take all that it carries, and "
                    f"{len(self._waiting)} more wait for room; more --nconsumers would not be faster"
                )
        else:
            self._waiting.pop(key, None)
            if progress.received:
                self._reading.add(key)
        if progress.throttled_s > 0 and not self._is_throttled:
            self._is_throttled = True
            yield Note("Kafka holds this transfer back by a quota of its own: it is slow, and goes on", warning=True)

    def forget(self, topic: str, range_: Range) -> None:
        """Forget a range that has ended."""
        self._waiting.pop((topic, range_), None)
        self._reading.discard((topic, range_))
