"""Row 22 over a line of 5 Mbit/s: a dataset goes to an object store and is read there; the line is cut, a run ended."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fink_dask
from fink_dask.ledger.ledger import Ledger
from fink_dask.store.bucket import open_bucket
from fink_dask.store.location import locate
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.kafka_settings import free_ports
from tests.harness.link import Line, Link
from tests.harness.object_store import ObjectStore
from tests.harness.oracle import Oracle, fill_topic, wait_for
from tests.harness.running import Running

#: More than 20 MB on the store, in a few files of several parts each.
COUNT = 400
LINE = Line(mbit=5, round_trip_s=0.03)

pytestmark = [pytest.mark.links, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_FULL, COUNT, partitions=1)


@pytest.fixture
def link(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """Yield a line to the store, which is the user's."""
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with Link({port: object_store.wire.port}, LINE) as link:
        yield link


def _running(kafka: Any, topic: str, url: str, *options: str) -> Running:
    running = Running(kafka, topic, Path(), "-outdir", url, *options)
    running.ledger = Ledger(locate(url))
    return running


def _wait_until_it_sends(running: Running, store: ObjectStore, url: str) -> None:
    prefix = locate(url).key.removesuffix("/alerts")  # type: ignore[attr-defined]
    wait_for(lambda: running.is_over or bool(store.uploads(prefix)), "an upload in parts")
    assert not running.is_over, running.finish()


def _finish(kafka: Any, topic: str, store: ObjectStore, link: Link, url: str, oracle: Oracle) -> None:
    """Go on over a whole line, and hold the dataset against what was published."""
    link.heal()
    link.set(Line())
    open_bucket.cache_clear()
    result = run_cli(*transfer_arguments(kafka, topic, Path(), "-partitionby", "time", "-outdir", url))
    assert result.returncode == 0, result.stderr
    verified = run_cli("verify", url)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    _assert_exactly_once(url, oracle)
    assert store.uploads(locate(url).key.removesuffix("/alerts")) == []  # type: ignore[attr-defined]


def _assert_exactly_once(url: str, oracle: Oracle) -> None:
    table = fink_dask.open_dataset(url).to_table(columns=["kafka_partition", "kafka_offset"])
    found = zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True)
    assert Counter(found) == Counter(oracle.values.keys())


def test_22_a_dataset_is_written_and_read_over_a_line_of_5_mbit(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str, link: Link
) -> None:
    arguments = transfer_arguments(kafka, topic, Path(), "-partitionby", "time", "-outdir", store_url)
    result = run_cli(*arguments, timeout_s=400)
    assert result.returncode == 0, result.stderr
    stored = sum(locate(store_url).sizes().values())  # type: ignore[attr-defined]
    assert stored > 15e6
    assert link.moved.up < 1.1 * stored, "something was sent twice"
    before = link.moved
    verified = run_cli("verify", store_url, timeout_s=400)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert link.moved.since(before).down < 1.3 * stored
    table = fink_dask.open_dataset(store_url).to_table()
    assert table.num_rows == COUNT
    _assert_exactly_once(store_url, oracle)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_22_who_stops_a_slow_upload_does_not_wait_for_it(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str, link: Link, number: int
) -> None:
    running = _running(kafka, topic, store_url)
    _wait_until_it_sends(running, object_store, store_url)
    os.killpg(running.process.pid, number)
    code, err = running.finish()
    assert code == 128 + number, err
    assert "Traceback" not in err
    _finish(kafka, topic, object_store, link, store_url, oracle)


def test_22_a_line_that_is_cut_for_a_minute_while_a_range_is_sent_ends_nothing(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str, link: Link
) -> None:
    running = _running(kafka, topic, store_url)
    _wait_until_it_sends(running, object_store, store_url)
    link.cut()
    with pytest.raises(AssertionError):
        wait_for(lambda: running.is_over, "nothing", timeout_s=60)
    link.heal()
    code, err = running.finish(400)
    assert code == 0, err
    _finish(kafka, topic, object_store, link, store_url, oracle)


def test_22_a_line_that_stays_cut_while_a_range_is_sent_ends_the_run_in_one_line_and_the_same_command_goes_on(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str, link: Link
) -> None:
    running = _running(kafka, topic, store_url, "--reconnect-timeout", "60s")
    _wait_until_it_sends(running, object_store, store_url)
    link.cut()
    code, err = running.finish(600)
    assert code == 1
    assert store_url in err.splitlines()[-1]
    assert "Traceback" not in err
    _finish(kafka, topic, object_store, link, store_url, oracle)
