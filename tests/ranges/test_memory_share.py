"""A user's limit of memory holds whatever the number of consumers, or is refused with what would do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fink_dask.cluster.existing import _memory
from fink_dask.errors import SettingsError
from fink_dask.ranges.memory import FULL_SHARE, MIN_SHARE, WORKER_BYTES, MemoryShare, share_memory
from fink_dask.ranges.task import transfer_range
from fink_dask.units import parse_memory
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import assert_exactly_once, fill_topic
from tests.harness.planned import plan_topic
from tests.harness.producer import produce

MIB, MB = 2**20, 10**6
AMOUNTS = st.integers(0, 64 * 2**30) | st.integers(0, 4096).map(lambda number: number * MIB)
COUNTS = st.integers(1, 300)


def parts(share: MemoryShare) -> tuple[int, int, int]:
    return share.queue_bytes, share.batch_bytes, share.buffer_bytes


def shared(limit: int, overhead: int, consumers: int, full_shares: int) -> MemoryShare | None:
    try:
        return share_memory(limit, overhead, consumers, full_shares)
    except SettingsError:
        return None


@given(AMOUNTS, AMOUNTS, COUNTS, COUNTS)
@example(600 * MIB, 550 * MIB, 3, 16)
@example(1000 * MIB, 550 * MIB, 20, 16)
@example(550 * MIB + 2 * MIN_SHARE.total, 550 * MIB, 2, 16)
def test_consumers_never_take_more_than_the_limit_and_are_refused_exactly_below_the_least(
    limit: int, overhead: int, consumers: int, full_shares: int
) -> None:
    share = shared(limit, overhead, consumers, full_shares)
    assert (share is None) == (limit < overhead + consumers * MIN_SHARE.total)
    if share is not None:
        assert overhead + consumers * share.total <= limit
        assert all(map(int.__le__, parts(MIN_SHARE), parts(share)))
        assert all(map(int.__le__, parts(share), parts(FULL_SHARE)))
        if consumers <= full_shares and limit >= overhead + consumers * FULL_SHARE.total:
            assert share == FULL_SHARE


@given(AMOUNTS, AMOUNTS, AMOUNTS, COUNTS, COUNTS, COUNTS)
def test_more_memory_is_never_a_smaller_share_and_more_consumers_never_a_larger_one(
    limit: int, more: int, overhead: int, consumers: int, further: int, full_shares: int
) -> None:
    share = shared(limit, overhead, consumers, full_shares)
    richer = shared(limit + more, overhead, consumers, full_shares)
    crowded = shared(limit, overhead, consumers + further, full_shares)
    if share is not None:
        assert richer is not None
        assert all(map(int.__le__, parts(share), parts(richer)))
    if crowded is not None:
        assert share is not None
        assert all(map(int.__le__, parts(crowded), parts(share)))


@given(st.integers(1, 4096), st.integers(0, 1024), COUNTS)
def test_what_a_refusal_names_is_enough_and_a_megabyte_less_is_not(limit: int, overhead: int, consumers: int) -> None:
    assume(shared(limit * MIB, overhead * MIB, consumers, 16) is None)
    with pytest.raises(SettingsError) as refusal:
        share_memory(limit * MIB, overhead * MIB, consumers, 16)
    *_, needed = re.findall(r"([\d,]+) MB", str(refusal.value))
    enough = int(needed.replace(",", "")) * MB
    assert "\n" not in str(refusal.value)
    assert shared(enough, overhead * MIB, consumers, 16) is not None
    assert shared(enough - MB, overhead * MIB, consumers, 16) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GB", 4 * 10**9),
        ("512MiB", 512 * MIB),
        ("1.5 GiB", 1536 * MIB),
        ("2e9", 2 * 10**9),
        ("900000000", 900_000_000),
        ("4gb", 4 * 10**9),
    ],
)
def test_memory_is_written_as_people_write_it(text: str, expected: int) -> None:
    assert parse_memory("--memory-limit", text) == expected


@pytest.mark.parametrize("text", ["", " ", "much", "GB", "4 elephants", "nan", "inf", "1e999", "-4GB", "4GB2", "1,5GB"])
def test_what_is_no_amount_of_memory_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="512MiB") as caught:
        parse_memory("--memory-limit", text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_too_little_memory_is_one_line_that_says_how_much_would_do(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 20, partitions=1)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "-nconsumers", "1", "--memory-limit")
    for text, words in (("lots", "'lots'"), ("100MB", "100 MB")):
        result = run_cli(*arguments, text)
        assert result.returncode == 2
        (line,) = [line for line in result.stderr.splitlines() if line]
        assert words in line
        assert not list(tmp_path.iterdir())
    assert "1 consumer," in line, "as was asked for"
    assert "--nconsumers" not in line, "there are no fewer"
    *_, needed = re.findall(r"([\d,]+) MB", line)
    result = run_cli(*arguments, f"{needed.replace(',', '')}MB")
    assert result.returncode == 0, result.stderr


def _share_of(*workers: tuple[int, int], limit: int | None = None) -> MemoryShare:
    """Return the share with workers of so many threads, and so much memory each."""
    return _memory([{"nthreads": threads, "memory_limit": room} for threads, room in workers], limit)


@given(st.lists(st.tuples(st.integers(1, 64), st.just(0) | AMOUNTS), min_size=1, max_size=9), AMOUNTS)
def test_the_limit_holds_for_all_workers_of_an_existing_scheduler_together(
    workers: list[tuple[int, int]], limit: int
) -> None:
    threads, overhead = sum(threads for threads, _ in workers), len(workers) * WORKER_BYTES
    try:
        share = _share_of(*workers, limit=limit)
    except SettingsError as error:
        *_, needed = re.findall(r"([\d,]+) MB", str(error))
        assert _share_of(*workers, limit=int(needed.replace(",", "")) * MB)
    else:
        assert overhead + threads * share.total <= limit


@pytest.mark.parametrize(("limit", "remedy"), [(MIB, "--memory-limit"), (None, "threads")])
def test_workers_of_an_existing_scheduler_with_too_little_are_not_told_to_give_fewer_consumers(
    limit: int | None, remedy: str
) -> None:
    """Each thread of a worker may get a range, however many consumers were asked for."""
    with pytest.raises(SettingsError, match=remedy) as caught:
        _share_of((2, 10 * MIB), limit=limit)
    assert "--nconsumers" not in str(caught.value)


def test_without_a_limit_the_poorest_worker_of_an_existing_scheduler_decides() -> None:
    assert _share_of((2, 0), (4, 0)) == FULL_SHARE
    poor, rich = (2, 2 * (WORKER_BYTES + 2 * MIN_SHARE.total)), (2, 2**40)
    assert _share_of(rich, poor, (2, 0)) == MIN_SHARE


def test_records_that_can_not_be_decoded_are_held_back_no_longer_than_alerts(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"\xff" * 5000] * 200)
    (item,) = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out", batchsize=10)
    task = replace(item.settings, memory=MemoryShare(batch_bytes=100_000, buffer_bytes=100_000))
    assert transfer_range(item.range, task).quarantined == 200
    assert_exactly_once(tmp_path / "out", oracle.values)
    (path,) = item.settings.ledger.path.rglob("*.parquet")
    assert pq.read_metadata(path).num_row_groups >= 200 * 5000 // 200_000
