"""A transfer over a user's line at home, to which something happens in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.filled import Filled
from tests.harness.link import FarKafka, Line
from tests.harness.oracle import wait_for
from tests.harness.running import Running

HOME = Line(mbit=8, round_trip_s=0.02)


@contextmanager
def in_mid_fetch(far: FarKafka, topic: Filled, outdir: Path, *options: str) -> Iterator[Running]:
    """Start a transfer of four consumers, and go on when a quarter of the topic has come; all of it ends in the end."""
    far.link.set(HOME)
    before = far.link.moved
    running = Running(far, topic.name, outdir, "-nconsumers", "4", *options, slowly=False)
    try:
        wait_for(lambda: running.is_over or far.link.moved.since(before).fetched > topic.stored_bytes / 4, "a quarter")
        assert not running.is_over, running.finish()
        yield running
    finally:
        running.kill()


def wait(seconds: float) -> None:
    """Let a fault last."""
    deadline = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > deadline, "the fault to end", timeout_s=seconds + 5)
