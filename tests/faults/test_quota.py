"""Row 29: a broker that throttles by quota."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.filled import fill_far_topic
from tests.harness.link import FarKafka
from tests.harness.oracle import assert_exactly_once

pytestmark = pytest.mark.links


@pytest.mark.sample
def test_29_a_broker_that_throttles_by_quota_is_slow_and_complete_and_is_named(far: FarKafka, tmp_path: Path) -> None:
    topic, client = fill_far_topic(far, 6000, partitions=4), ("--entity-type", "clients", "--entity-name", "fink-dask")
    far.near.configure("--alter", "--add-config", "consumer_byte_rate=400000", *client)
    try:
        result = run_cli(*transfer_arguments(far, topic.name, tmp_path / "alerts"))
    finally:
        far.near.configure("--alter", "--delete-config", "consumer_byte_rate", *client)
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", topic.oracle.values)
    assert re.search("quota|throttl", result.stderr), result.stderr
