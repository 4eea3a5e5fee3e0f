"""The page `/fink` and the metrics tell the truth while a transfer runs, and after it; seen in a real browser."""

from __future__ import annotations

import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import summarise
from tests.alerts.made_up import AlertKind
from tests.harness.browser import Browser
from tests.harness.dashboard import Shown, keep_picture, metrics, shown
from tests.harness.dask import running_scheduler
from tests.harness.feed import Feed
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import assert_exactly_once, fill_topic, make_topic, wait_for
from tests.harness.producer import produce
from tests.harness.running import Running
from tests.harness.topics import PATIENCE_S, delete_records_before

LIGHT = AlertKind.ZTF_LIGHT
STAGES = ["poll", "copy", "decode", "split", "write", "fsync", "commit"]


pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("chromium")]


def until(browser: Browser, is_so: Callable[[Shown], bool], what: str, timeout_s: float = 60) -> Shown:
    """Wait until the page shows something, and return what it shows then."""
    seen = shown(browser)
    deadline = time.monotonic() + timeout_s
    while not (seen.tiles and is_so(seen)):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}; the page says {seen}"
        time.sleep(0.1)
        seen = shown(browser)
    return seen


def committed(outdir: Path) -> int:
    ledger = Ledger(outdir)
    return summarise(ledger).summary.alerts if ledger.exists() else 0


def test_the_page_and_the_metrics_tell_the_truth_while_a_topic_is_filled_and_followed(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}"
    early = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 1000)
    lost = delete_records_before(kafka.bootstrap_servers, topic_name, 3, 20)
    options = ("--follow", "--roll-interval", "1s", "--idle-timeout", "10m", "-nconsumers", "2")
    running = Running(
        kafka, topic_name, tmp_path / "alerts", *options, "-batchsize", "1000", "--dashboard-address", base[7:]
    )
    running.wait_until_committed(1)  # the dashboard is there before
    with Browser(f"{base}/fink") as browser:
        until(browser, lambda seen: seen.topic == topic_name, "the topic")
        with Feed(kafka.bootstrap_servers, topic_name, 10_000, 800, (1,) * 10) as feeding:
            looks = 0
            while not feeding.is_over:
                # What moves is between what was true before a look and what is true after it.
                before = committed(running.outdir)
                seen = until(browser, lambda seen, least=before: seen.number("alerts") >= least, f"{before} alerts")
                assert before <= seen.number("alerts") <= committed(running.outdir)
                looks += 1
            keep_picture(browser, "dashboard.png", tmp_path)
        assert looks
        assert seen.state.startswith("running")
        assert seen.tiles["left"] == "\N{EN DASH}"  # nobody knows
        assert max(browser.sources("alerts_per_second")[0]["value"]) > 0
        bad = produce(kafka.bootstrap_servers, topic_name, [b"no alert", b"", b"\x00" * 40])

        places = {place for place in [*early.values, *feeding.values] if place[0] != 3 or place[1] >= lost}
        until(browser, lambda seen: seen.number("quarantined") == len(bad), "the last records")
        seen = until(browser, lambda seen: seen.tiles["lag"] == "0", "the last look at the topic")
        markers = list(Ledger(running.outdir).markers(Ledger(running.outdir).plans()))
        assert seen.number("alerts") == len(places)
        assert (seen.tiles["quarantined"], seen.tiles["lost"]) == ("3", "20")
        assert (seen.tiles["share"], seen.tiles["ranges_running"]) == ("100 %", "0")
        assert seen.number("ranges") == len(markers)
        ends = Counter(partition for partition, _ in places) + Counter(item.partition for item in bad)
        ends[3] += lost
        bars, lags, speeds, behind = browser.sources("partitions", "lags", "alerts_per_second", "lag")
        assert dict(zip(bars["partition"], bars["committed"], strict=True)) == dict(ends)
        assert bars["offsets"] == bars["committed"]
        assert set(bars["committed_share"]) == {100}
        assert lags["lag"] == [0] * 10
        times = behind["seconds"]
        assert speeds["seconds"] == times
        # Not what the first point had already.
        assert (
            0 < sum(v * (b - a) for v, a, b in zip(speeds["value"][1:], times, times[1:], strict=False)) <= len(places)
        )
        shares = browser.texts("[id^=stage-]")
        assert [words.split()[0] for words in shares] == STAGES
        assert abs(sum(int(words.split()[1]) for words in shares) - 100) <= len(STAGES)

        found = metrics(base)
        topic = (topic_name,)
        assert found["fink_dask_transfers"] == {(): 1}
        assert found["fink_dask_alerts_total"] == {topic: len(places)}
        assert found["fink_dask_alerts_read_total"][topic] >= len(places)
        assert found["fink_dask_bytes_total"][topic] == summarise(Ledger(running.outdir)).summary.raw_bytes
        assert found["fink_dask_quarantined_total"] == {topic: 3}
        assert found["fink_dask_lost_total"] == {topic: lost}
        assert found["fink_dask_lag"] == {topic: 0}
        assert found["fink_dask_offsets"] == found["fink_dask_offsets_committed"] == {topic: ends.total()}
        assert found["fink_dask_partition_lag"] == {(topic_name, str(n)): 0 for n in range(10)}
        assert {stage for _, stage in found["fink_dask_stage_seconds_total"]} == set(STAGES)
        newest = max(marker.newest_ms or 0 for marker in markers)
        assert found["fink_dask_newest_alert_timestamp_seconds"] == {topic: newest / 1000}
        assert len(found) == 23
        assert found["fink_dask_received_bytes_total"][topic] >= found["fink_dask_bytes_total"][topic]
        assert found["fink_dask_offsets_received"] == found["fink_dask_offsets"]
        assert "Fink" in browser.texts(".navbar a")
    with urllib.request.urlopen(f"{base}/status", timeout=PATIENCE_S) as answer:
        assert 'href="fink"' in answer.read().decode()
    running.process.send_signal(signal.SIGINT)
    code, err = running.finish()
    assert code == 130, err
    assert "warning: the page" not in err
    assert_exactly_once(running.outdir, places)


def freeze(running: Running) -> None:
    """Stop the workers where they are, so that the transfer lasts for as long as somebody looks."""
    for worker in running.workers():
        worker.suspend()


def any_is_running(browser: Browser) -> bool:
    """Tell whether the page shows a range on its way, once it has had the time for it."""
    try:
        return bool(until(browser, lambda seen: seen.number("ranges_running") > 0, "a range that runs", 5))
    except AssertionError:
        return False


def test_ranges_that_run_have_their_worker_and_those_of_a_worker_that_is_killed_are_retries(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 12_000, partitions=2)
    running = Running(
        kafka, topic_name, tmp_path / "alerts", "-nconsumers", "2", "--dashboard-address", f"127.0.0.1:{port}"
    )
    running.wait_until_it_reads()  # the dashboard is there before
    freeze(running)
    with Browser(f"http://127.0.0.1:{port}/fink") as browser:
        while not any_is_running(browser):
            for worker in running.workers():
                worker.resume()
            time.sleep(0.1)  # a step of the transfer, on a machine of any speed
            freeze(running)
        seen = shown(browser)
        # The list may be drawn after the tiles above it.
        wait_for(lambda: bool(browser.texts(".range")), "the ranges that are read")
        (first, *_) = browser.texts(".range")
        listening = {
            f"{connection.laddr.ip}:{connection.laddr.port}"
            for worker in running.workers()
            for connection in worker.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert any(address in first for address in listening), (first, listening)
        assert seen.tiles["retries"] == "0"
        for worker in running.workers():
            worker.kill()
        seen = until(browser, lambda seen: seen.number("retries") > 0, "a retry")
        assert metrics(f"http://127.0.0.1:{port}")["fink_dask_retries_total"][topic_name,] >= seen.number("retries")
        assert metrics(f"http://127.0.0.1:{port}")["fink_dask_ranges_running"][topic_name,] <= 4
    code, err = running.finish()
    assert code == 0, err
    assert f"Dask dashboard: http://127.0.0.1:{port}/fink" in err
    assert_exactly_once(running.outdir, oracle.values)


def test_a_scheduler_that_exists_shows_how_each_transfer_ended_and_counts_them_together(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, LIGHT, 4)
    with running_scheduler() as (address, base), Browser(f"{base}/status") as browser:
        wait_for(lambda: "Status" in browser.texts(".navbar a"), "the dashboard")
        assert "Fink" not in browser.texts(".navbar a")
        options = ("--follow", "--until-count", "4000", "--roll-interval", "1s", "--scheduler", address)
        with Feed(kafka.bootstrap_servers, topic_name, 4000, 1000, (1,) * 4) as feeding:
            first = Running(kafka, topic_name, tmp_path / "first", *options, "-batchsize", "1000")
        code, err = first.finish()
        assert code == 0, err
        browser.call("Page.navigate", url=f"{base}/fink")
        seen = until(browser, lambda seen: "committed" in seen.state, "the end")
        assert (seen.number("alerts"), seen.tiles["lag"]) == (4000, "0")
        assert metrics(base)["fink_dask_transfers"] == {(): 0}
        assert metrics(base)["fink_dask_lag"] == {}

        waiting = ("--follow", "--idle-timeout", "10m", "--roll-interval", "1s", "--scheduler", address)
        second = Running(kafka, topic_name, tmp_path / "second", *waiting, "-batchsize", "1000")
        until(browser, lambda seen: seen.state.startswith("running") and seen.number("alerts") == 4000, "the next one")
        assert metrics(base)["fink_dask_transfers"] == {(): 1}
        second.kill()
        until(browser, lambda seen: "disappeared" in seen.state, "its death")
        assert_exactly_once(tmp_path / "second", feeding.values)
        found = metrics(base)
        assert found["fink_dask_alerts_total"] == {(topic_name,): 8000}
        assert (found["fink_dask_transfers"], found["fink_dask_lag"]) == ({(): 0}, {})
        # The one that ended can be chosen, and stays chosen.
        choices = "Bokeh.documents[0].get_model_by_name('choice')"
        assert browser.evaluate(f"{choices}.options.length") == 2
        browser.evaluate(f"{choices}.value = {choices}.options[1][0]")
        until(browser, lambda seen: "committed" in seen.state, "what was chosen")
