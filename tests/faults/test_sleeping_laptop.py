"""Row 26: the laptop sleeps. In a file of its own, as the ten minutes pass while those of other files do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.filled import fill_far_topic
from tests.harness.link import FarKafka, far_kafka
from tests.harness.mid_fetch import HOME, in_mid_fetch, wait
from tests.harness.oracle import assert_exactly_once, wait_for

pytestmark = pytest.mark.links


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarKafka]:
    """Yield a Kafka that hangs up on whoever has not asked for two seconds."""
    with far_kafka(tmp_path_factory.mktemp("impatient-kafka"), HOME, {"connections.max.idle.ms": "2000"}) as kafka:
        yield kafka


@pytest.mark.parametrize(
    "sleep_s", [0, pytest.param(600, marks=[pytest.mark.faults, pytest.mark.timeout(1000)])], ids=["a moment", "600"]
)
def test_26_a_laptop_that_sleeps_while_kafka_hangs_up_goes_on_when_it_wakes(
    impatient: FarKafka, tmp_path: Path, sleep_s: float
) -> None:
    topic = fill_far_topic(impatient, 15_000)
    before = impatient.link.moved
    with in_mid_fetch(impatient, topic, tmp_path / "alerts") as running:
        running.signal(signal.SIGSTOP)
        ended = impatient.link.moved.hung_up
        wait_for(lambda: impatient.link.moved.hung_up >= ended + 4, "Kafka to hang up on all that fetch")
        wait(sleep_s)
        running.signal(signal.SIGCONT)
        code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(running.outdir, topic.oracle.values)
    topic.assert_moved_about_once(impatient.link.moved.since(before))
