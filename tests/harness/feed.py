"""A topic that is filled at a steady pace while it is read, as Fink's server does it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError, Message, Producer

from tests.alerts.made_up import AlertKind
from tests.harness.alerts_once import alerts_once
from tests.harness.oracle import Place
from tests.harness.topics import client_config

#: Seconds between two bursts.
_STEP_S = 0.05


class Feed:
    """A thread that publishes alerts; a context manager that waits until all are acknowledged."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        count: int,
        per_second: float,
        weights: Sequence[float],
        seed: int = 0,
        held: int = 0,
    ) -> None:
        # bootstrap, topic: where to.
        self._bootstrap = bootstrap
        self._topic = topic
        #: The bytes of each acknowledged alert, by partition and offset.
        self._values = alerts_once(AlertKind.ZTF_LIGHT, count, seed)
        # How many a second; infinity for as many as possible.
        self._per_second = per_second
        # The share of each partition.
        self._weights = weights
        self._chance = random.Random(seed)
        self._failures: list[str] = []
        self.values: dict[Place, bytes] = {}
        #: When each was handed over, in seconds since 1970-01-01 UTC.
        self.sent_at: dict[Place, float] = {}
        self.ended_at = 0.0
        # How many it keeps until `release`: it is not over before, however slow everybody else is.
        self._held = held
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    @property
    def is_over(self) -> bool:
        """Whether everything is acknowledged."""
        return not self._thread.is_alive()

    def release(self) -> None:
        """Publish what is held."""
        self._released.set()

    def finish(self) -> None:
        """Wait until everything is acknowledged."""
        self.release()
        self._thread.join(300)
        assert not self._thread.is_alive(), "the producer hangs"
        assert not self._failures, self._failures[0]

    def _run(self) -> None:
        producer = Producer(
            client_config(self._bootstrap)
            | {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 120_000}
        )
        began = time.monotonic()
        partitions = self._chance.choices(range(len(self._weights)), self._weights, k=len(self._values))
        for number, (value, partition) in enumerate(zip(self._values, partitions, strict=True)):
            while number > (time.monotonic() - began) * self._per_second or (
                number >= len(self._values) - self._held and not self._released.is_set()
            ):
                producer.poll(_STEP_S)
            done = partial(self._note, value, time.time())
            while True:
                try:
                    producer.produce(self._topic, value, None, partition, on_delivery=done)
                    break
                except BufferError:
                    producer.poll(_STEP_S)
            if number % 100 == 0:
                producer.poll(0)
        producer.flush(150)
        self.ended_at = time.time()

    def _note(self, value: bytes, sent_at: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error.str())
            return
        place = (message.partition(), message.offset())
        self.values[place] = value
        self.sent_at[place] = sent_at
