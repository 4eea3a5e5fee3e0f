"""The topic of a soak, while it is filled: bursts, transactions, poison, and the head that retention takes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from confluent_kafka import KafkaException

from tests.harness.oracle import Place
from tests.harness.producer import NotAcknowledgedError, Produced, open_transaction, produce
from tests.soak.alerts import digest, make_alerts

#: What no reader takes for an alert: shorter than any.
POISON = [b"", b"\xff" * 9, b"\x00" * 5]


class Filling:
    """A thread that fills a topic in bursts, and knows what was acknowledged."""

    def __init__(self, bootstrap: str, topic: str, chance: random.Random, burst: int, total: int) -> None:
        # bootstrap, topic: where.
        self._bootstrap = bootstrap
        self._topic = topic
        self._chance = chance
        # Alerts of a burst, about.
        self._burst = burst
        # Alerts after which it is enough.
        self._total = total
        #: alerts, poison: digest of each acknowledged alert, and of each record that is none, by partition and offset.
        self.alerts: dict[Place, bytes] = {}
        self.poison: dict[Place, bytes] = {}
        self.failures: list[str] = []
        self._made = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to fill."""
        self._thread.start()

    def finish(self) -> None:
        """Stop filling, and wait until everything is acknowledged."""
        self._over.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the producer hangs"

    @property
    def is_enough(self) -> bool:
        """Whether the topic holds what it is to hold."""
        return self._made >= self._total

    def _run(self) -> None:
        while not self._over.is_set() and not self.is_enough:
            action = self._chance.choices([self._plain, self._committed, self._aborted, self._poison], [6, 2, 1, 1])[0]
            try:
                action()
            except (KafkaException, NotAcknowledgedError, BufferError) as error:
                # A broker that was killed may have taken what it never acknowledged: such a topic proves nothing.
                self.failures.append(str(error))
                return
            self._over.wait(self._chance.random() * 0.5)

    def _values(self, count: int) -> list[bytes]:
        values = list(make_alerts(self._chance, self._made, count))
        self._made += count
        return values

    def _plain(self) -> None:
        values = self._values(self._chance.randrange(1, 2 * self._burst))
        self._note(self.alerts, values, lambda: produce(self._bootstrap, self._topic, values, seed=self._made))

    def _committed(self) -> None:
        values = self._values(self._burst // 4)
        transaction = open_transaction(self._bootstrap, self._topic, values, seed=self._made)
        self._over.wait(self._chance.random())
        self._note(self.alerts, values, transaction.commit)

    def _aborted(self) -> None:
        values = list(make_alerts(self._chance, 10**9 + self._made, self._burst // 10))
        transaction = open_transaction(self._bootstrap, self._topic, values, seed=self._made)
        self._over.wait(self._chance.random())
        transaction.abort()

    def _poison(self) -> None:
        values = [self._chance.choice(POISON) for _ in range(20)]
        self._note(self.poison, values, lambda: produce(self._bootstrap, self._topic, values, seed=self._made))

    def _note(self, where: dict[Place, bytes], values: list[bytes], send: Callable[[], list[Produced]]) -> None:
        for record in send():
            where[record.partition, record.offset] = digest(values[record.index])
