"""Topics of alerts of real size behind a link, and whether a transfer moved them about once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.link import FarKafka, Line, Moved
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic
from tests.harness.topics import name_topic

#: What clients ask and are told beside the alerts: metadata, schemas, empty fetches.
BESIDE_BYTES = 200_000
#: Of a batch of records, as Spark's producer makes them unless it is told otherwise.
BATCH_BYTES = 16_384


@dataclass(frozen=True)
class Filled:
    """A topic that is there, and what is in it."""

    name: str
    #: What its producer knows.
    oracle: Oracle
    #: What its batches take in Kafka's own files.
    stored_bytes: int

    def assert_moved_about_once(self, moved: Moved) -> None:
        """Fail if the line carried much more than the topic."""
        assert moved.down <= 1.25 * self.stored_bytes + BESIDE_BYTES, f"{moved} for {self.stored_bytes} bytes"


def fill_far_topic(far: FarKafka, alerts: int, partitions: int = 10, batch_bytes: int = BATCH_BYTES) -> Filled:
    """Make a topic of so many light alerts of about 1 kB, whose name nobody else has."""
    name = name_topic()
    options = {"batch.size": batch_bytes}
    oracle = fill_topic(
        far.near.bootstrap_servers, name, AlertKind.ZTF_LIGHT, alerts, partitions=partitions, options=options
    )
    return Filled(name, oracle, far.stored_bytes(name))


def carry(far: FarKafka, topic: Filled, outdir: Path, line: Line, *options: str, timeout_s: float = 250) -> Moved:
    """Transfer a topic over a line, hold the dataset against the oracle, and return what was moved meanwhile."""
    far.link.set(line)
    before = far.link.moved
    result = run_cli(*transfer_arguments(far, topic.name, outdir, *options), timeout_s=timeout_s)
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, topic.oracle.values)
    return far.link.moved.since(before)
