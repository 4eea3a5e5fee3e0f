"""A Kafka behind a link, and what goes over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.harness.filled import Filled, fill_far_topic
from tests.harness.link import FarKafka, Line, far_kafka


@pytest.fixture(scope="module")
def shared_far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarKafka]:
    """Yield a Kafka behind a link, for all tests of a file."""
    with far_kafka(tmp_path_factory.mktemp("far-kafka"), Line()) as kafka:
        yield kafka


@pytest.fixture
def far(shared_far: FarKafka) -> Iterator[FarKafka]:
    """Yield a Kafka behind a link; the test may make the line what it likes."""
    yield shared_far
    shared_far.link.heal()
    shared_far.link.set(Line())


@pytest.fixture(scope="module")
def far_topic(shared_far: FarKafka) -> Callable[[int], Filled]:
    """Return what makes a topic of so many light alerts, once for all tests that only read it."""
    made: dict[int, Filled] = {}

    def topic(alerts: int) -> Filled:
        if alerts not in made:
            made[alerts] = fill_far_topic(shared_far, alerts)
        return made[alerts]

    return topic
