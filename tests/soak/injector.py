"""What happens to a transfer, its workers, its broker and its topic: chosen at random, counted by name."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress

import psutil

from tests.harness.kafka import KafkaBroker
from tests.harness.running import Running
from tests.harness.topics import delete_records_before


class Injector:
    """Injects faults into what runs."""

    def __init__(self, broker: KafkaBroker, topic: str, chance: random.Random) -> None:
        self._broker = broker
        self._topic = topic
        self._chance = chance
        #: How many of each kind there were.
        self.faults: Counter[str] = Counter()

    def inject(self, running: Running) -> None:
        """Let something happen."""
        kinds = {
            self._kill_everything: 3,
            self._interrupt: 2,
            self._kill_worker: 6,
            self._freeze_worker: 3,
            self._pause_broker: 2,
            self._bounce_broker: 1,
            self._remove_head: 1,
        }
        self._chance.choices(list(kinds), list(kinds.values()))[0](running)

    def _kill_everything(self, running: Running) -> None:
        if not running.is_over:
            running.kill()
            self.faults["SIGKILL of everything"] += 1

    def _interrupt(self, running: Running) -> None:
        if not running.is_over:
            number = self._chance.choice([signal.SIGINT, signal.SIGTERM])
            with suppress(ProcessLookupError):
                os.killpg(running.process.pid, number)
                self.faults[f"{number.name} of the client"] += 1

    def _kill_worker(self, running: Running) -> None:
        self._signal_worker(running, self._chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))

    def _freeze_worker(self, running: Running) -> None:
        if (worker := self._signal_worker(running, signal.SIGSTOP)) is not None:
            time.sleep(self._chance.random() * 3)
            with suppress(psutil.Error):
                worker.send_signal(signal.SIGCONT)

    def _signal_worker(self, running: Running, number: signal.Signals) -> psutil.Process | None:
        workers = running.workers() if not running.is_over else []
        if not workers:
            return None
        worker = self._chance.choice(workers)
        with suppress(psutil.Error):
            worker.send_signal(number)
            self.faults[f"{number.name} of a worker"] += 1
            return worker
        return None

    def _pause_broker(self, _: Running) -> None:
        self._broker.pause()
        try:
            time.sleep(1 + self._chance.random() * 4)
        finally:
            self._broker.resume()
        self.faults["a pause of the broker"] += 1

    def _bounce_broker(self, _: Running) -> None:
        self._broker.stop()
        self._broker.start()
        self.faults["a restart of the broker"] += 1

    def _remove_head(self, _: Running) -> None:
        partition = self._chance.randrange(10)
        address = self._broker.bootstrap_servers
        with suppress(Exception):  # there may be less than that
            delete_records_before(address, self._topic, partition, self._chance.randrange(1, 2000))
            self.faults["retention"] += 1
