"""The line to Kafka, as all readers of a process share it: how much to ask for at once, who may ask, and how fast.

A user's line may carry 250 kB a second or 100 MB, with a round trip of a millisecond or of a second. What fits it is
not known before something has arrived, so each range begins with what the ones before it have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

#: What the first fetch of a process asks for, in bytes: as librdkafka does by itself.
FIRST_FETCH_BYTES = 2**20
#: Bounds of what a fetch asks for. Two seconds of a line of 1 Mbit/s; and what is enough for 4 MB a second at a round
#: trip of two seconds.
MIN_FETCH_BYTES, MAX_FETCH_BYTES = 2**18, 2**23
#: Seconds that a response should take: so few that a stop or a cut costs little, so many that round trips do not count.
_RESPONSE_S = 2.0
#: Of so many round trips more it may take, so that the one in which the line is idle is a small part.
_ROUND_TRIPS = 3
#: A response that took less says that the line has room for one more reader; one that took so long, that it is full.
#: librdkafka gives a response up after a minute.
_ROOM_S, _FULL_S = 8.0, 15.0
#: If less than this part of what came was of use, too much of it was cut off.
_WHOLE = 0.9
#: And if it was so many times as much, it was compressed.
_COMPRESSED = 1.5
#: So many records a fetch asks for where they are so large that each is a batch of its own: Kafka cuts a response off
#: in the midst of a batch, and what is cut comes once more. But no more than so many times what fits the line.
_LARGE_RECORDS, _LARGE_BYTES, _MORE = 16, 96 * 2**10, 4
#: How many may read at once before anything has arrived.
_FIRST_READERS = 2
#: What the first fetches of all processes ask for together. At 2 Mbit/s that takes 17 seconds; with 1 MiB for each of
#: two readers in each of 16 processes none would come within a minute, so that none would ever come.
_FIRST_BYTES = 4 * FIRST_FETCH_BYTES
#: Where a rate is set: the part of it that readers keep to, as what has come is known half a second later.
_KEPT = 0.92
#: And the part that is of use: Kafka cuts responses off in the midst of a batch, and what was cut comes once more, as
#: does what had come from beyond the end of a range.
OF_USE = 0.8
#: What a fetch asks for then, in seconds of the whole rate and of what this process may take of it, whichever is less;
#: and the least, however little that is.
_FETCH_S, _FETCH_OWN_S, _FETCH_BYTES = 0.125, 2.0, 2**16
#: With room for fewer large records than that, a fetch asks for one: of two and a half, the half would come in vain.
_FEW = 4
#: Seconds of not reading that are made up for afterwards: a batch is decoded meanwhile.
_CREDIT_S = 0.5
#: Seconds between two looks at whether a reader that waits is still wanted.
_LOOK_S = 0.2


@dataclass
class _Account:
    """What a reader has taken where a rate is set."""

    #: Bytes a second that the readers of all processes together may take.
    rate: int
    #: What it paid for its first response, before it asked for that; each later one is paid for by what is taken before
    #: it, so this comes back in the end.
    ahead_bytes: int
    #: What it has paid for until now.
    paid_bytes: int = 0
    #: Whether it was said at least once how much has come.
    is_settled: bool = False


def least_fetch(record_bytes: int) -> int:
    """Return what a fetch should ask for at least where records are so large; 0 where it does not matter."""
    return _LARGE_RECORDS * record_bytes if record_bytes >= _LARGE_BYTES else 0


class Line:
    """What the readers of a process know of the line, and share of it; any thread may use it."""

    def __init__(self, readers: int = _FIRST_READERS) -> None:
        #: What the next consumer should ask for at once.
        self.fetch_bytes = FIRST_FETCH_BYTES
        #: What part of a rate that is set for the readers of all processes is this process's.
        self.part = 1.0
        #: How many may read at once, of those that ask for `fetch_bytes`.
        # How many may read at once before anything has arrived; more may as responses come quickly.
        self.readers: float = readers
        self._processes = 1
        self._is_compressed = False
        #: Those that read; with an account where a rate is set.
        self._readers: dict[object, _Account | None] = {}
        #: How many fetches of `fetch_bytes` that is for which each of them asks.
        self._parts: dict[object, float] = {}
        #: Those that wait, in their order, and whether a rate is set for them.
        self._queue: dict[object, bool] = {}
        self._free_at = 0.0
        #: What a first response has brought: a batch may be larger than what was asked for.
        self._first_bytes = 0
        self._changed = Condition()

    def begin_among(self, processes: int) -> None:
        """Begin with less where so many processes read over the same line; to be called before anything has arrived."""
        with self._changed:
            self._processes = processes
            self.readers = max(1, min(int(self.readers), _FIRST_BYTES // FIRST_FETCH_BYTES // processes))
            fair = _FIRST_BYTES // (processes * int(self.readers))
            self.fetch_bytes = max(MIN_FETCH_BYTES, min(self.fetch_bytes, fair))

    def fetch_for(self, record_bytes: int) -> int:
        """Return what the next consumer should ask for at once where records are so large; 0 if that is not known."""
        if self._is_compressed:  # and as large as that only after it has come
            return self.fetch_bytes
        most = min(_MORE * self.fetch_bytes, 2 * _FIRST_BYTES // self._processes)
        return max(self.fetch_bytes, min(most, least_fetch(record_bytes)))

    def enter(self, reader: object, rate: int | None = None, asks_bytes: int = 0) -> bool:
        """Let a reader ask for records if there is room; it then has to `leave`.

        `reader`: who asks; those that were refused come first, in their order.
        `rate`: the bytes a second that the readers of all processes together may take. As long as those that read here
        take what this process may, nobody else has to.
        `asks_bytes`: what it asks for at once, or will get, as there is no more; 0 for `fetch_bytes`. Of short ranges
        more are let in: far away it is their number that fills the line. Of readers that ask for more there are fewer.
        It does not count where a rate is set.
        """
        with self._changed:
            part = asks_bytes / self.fetch_bytes if asks_bytes and rate is None else 1.0
            is_paid = self._left_s() <= 0
            # Who waits for a rate that was set for its run keeps nobody of another run.
            first = next((each for each, is_limited in self._queue.items() if is_paid or not is_limited), reader)
            is_full = bool(self._readers) and self._asked + part > self.readers
            if first is not reader or is_full or not (is_paid or rate is None):
                self._queue.setdefault(reader, rate is not None)
                return False
            self._queue.pop(reader, None)
            self._readers[reader], self._parts[reader] = None, part
            self.readers = max(self.readers, part)  # one is always let in, whatever it asks for
            if rate is not None:
                account = self._readers[reader] = _Account(rate, max(self._first_bytes, self.most_at_once(rate)))
                self._free_at = max(self._free_at, time.monotonic())  # nothing was missed before
                self._pay(account, account.ahead_bytes)
            self._changed.notify_all()
            return True

    def wait(self, reader: object, rate: int | None, look: Callable[[], None], asks_bytes: int = 0) -> None:
        """Wait until a reader may ask; `look` is called several times a second, and what it raises ends the wait."""
        while not self.enter(reader, rate, asks_bytes):
            look()
            with self._changed:
                self._changed.wait(_LOOK_S)

    def leave(self, reader: object) -> None:
        """Make room, or no longer wait for it; repeatable."""
        with self._changed:
            if (account := self._readers.pop(reader, None)) is not None:
                self._pay(account, -account.ahead_bytes)
            self._parts.pop(reader, None)
            self._queue.pop(reader, None)
            self._changed.notify_all()

    def arrived(
        self, waited_s: float, is_first: bool = False, round_trip_s: float = 0.0, reader: object = None
    ) -> None:
        """Take note of a response that a reader waited for; the first one of a connection had to wait for that too."""
        with self._changed:
            if waited_s < (_FULL_S if is_first else _ROOM_S + _ROUND_TRIPS * round_trip_s):
                # Room for one more of its kind.
                more = max(1.0, self._parts.get(reader, 1.0))
                self.readers = max(self.readers, min(self.readers, self._asked) + more)
            elif waited_s > _FULL_S:
                self.readers = max(1, min(self.readers, self._asked) // 2)
            self._changed.notify_all()

    @property
    def _asked(self) -> float:
        return sum(self._parts.values())

    def crowded(self) -> None:
        """Let one reader in, which asks for little, as nothing has come in time for those that are here."""
        with self._changed:
            self.readers, self.fetch_bytes = 1, MIN_FETCH_BYTES

    def fetched(
        self, fetch_bytes: int, response_s: float, expansion: float, queue_bytes: int, round_trip_s: float = 0.0
    ) -> None:
        """Learn from a range that was read.

        `response_s`: seconds that a response took, as long as nothing else was there to be read.
        `expansion`: how many times as large as that the records were after decompression; 1 where they were not
        compressed.
        `queue_bytes`: what may be held of records that were fetched ahead.
        `round_trip_s`: seconds that a response takes which holds nothing.
        """
        target_s = _RESPONSE_S + _ROUND_TRIPS * round_trip_s
        wanted = fetch_bytes * min(8.0, max(0.125, target_s / max(response_s, 0.001)))
        if expansion < _WHOLE and response_s < _FULL_S / 2:
            # Kafka cuts a response off in the middle of a batch, and what is cut is sent once more: batches are large.
            wanted = max(wanted, 2 * fetch_bytes)
        self._is_compressed = self._is_compressed or expansion > _COMPRESSED
        most = min(MAX_FETCH_BYTES, int(queue_bytes / 2 / max(1.0, expansion)))
        with self._changed:
            self.fetch_bytes = max(min(MIN_FETCH_BYTES, most), min(most, int(wanted)))

    def most_at_once(self, rate: int, record_bytes: int = 0) -> int:
        """Return the most that a fetch should ask for where a rate is set, so that it is kept from the beginning."""
        most = max(_FETCH_BYTES, int(rate * min(_FETCH_S, _FETCH_OWN_S * self.part)))
        # A batch comes whole in any case.
        return most if _FEW * record_bytes <= most else min(most, record_bytes // 2)

    def take(self, reader: object, taken_bytes: int) -> None:
        """Count what a reader has taken, where a rate is set: as much as that is asked for then."""
        with self._changed:
            if (account := self._readers.get(reader)) is not None:
                self._pay(account, taken_bytes)

    def settle(self, reader: object, wire_bytes: int) -> None:
        """Count what has come over the line for a reader until now, where a rate is set.

        It may be more than what was taken, as a batch that did not fit the response comes again.
        """
        with self._changed:
            if (account := self._readers.get(reader)) is None:
                return
            if not account.is_settled and wire_bytes >= _FETCH_BYTES:
                account.is_settled, self._first_bytes = True, min(wire_bytes, MAX_FETCH_BYTES)
            self._pay(account, max(0, wire_bytes - account.paid_bytes))

    def _pay(self, account: _Account, wire_bytes: int) -> None:
        account.paid_bytes += wire_bytes
        self._free_at = max(self._free_at, time.monotonic() - _CREDIT_S)
        self._free_at += wire_bytes / (_KEPT * self.part * account.rate)

    def pause_s(self, reader: object) -> float:
        """Return the seconds until a reader may take more; none where no rate is set for it."""
        return self._left_s() if self._readers.get(reader) is not None else 0.0

    def _left_s(self) -> float:
        return max(0.0, self._free_at - time.monotonic())
