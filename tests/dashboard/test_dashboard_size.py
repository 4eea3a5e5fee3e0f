"""The page can be read whatever the size: with 10 partitions and 2 workers, and with 200 partitions and 100 workers."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from fink_dask.dashboard.reporter import Reporter
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeCommitted, RangeFailed, RangeProgress, TransferStarted
from fink_dask.progress.profile import STAGES
from fink_dask.progress.tally import Progress
from tests.harness.browser import Browser
from tests.harness.dashboard import keep_picture, metrics, shown
from tests.harness.dask import running_scheduler
from tests.harness.oracle import wait_for
from tests.harness.topics import PATIENCE_S

pytestmark = pytest.mark.browser

SIZE = 50_000
HOSTILE = '</div><img src=x onerror="document.title=1">{{ 7 * 7 }}\n\u202eztf'


class Transfer:
    """Tells what a transfer of some workers would; nothing is read from anywhere."""

    def __init__(self, progress: Progress, topic: str, partitions: int, workers: int) -> None:
        self._progress = progress
        self._topic = topic
        self._chance = random.Random(1)
        # partitions, workers: how many there are.
        self._workers = [f"tcp://10.13.{n // 250}.{n % 250 + 1}:{40_000 + n}" for n in range(workers)]
        planned = {p: (int(SIZE * 4 * self._chance.uniform(0.2, 1)), 0) for p in range(partitions)}
        self._open = [OffsetRange(p, s, min(s + SIZE, n)) for p, (n, _) in planned.items() for s in range(0, n, SIZE)]
        self._chance.shuffle(self._open)
        self._running: dict[str, list[RangeProgress]] = {}
        self.offsets, self.ranges, self.committed = sum(n for n, _ in planned.values()), len(self._open), 0
        progress(TransferStarted(topic, self.ranges, 0, self.offsets, 0, None, planned))

    def step(self) -> None:
        """Let each worker read a part of its range, commit it, or fail."""
        chance = self._chance
        for worker in self._workers:
            reports = self._running.get(worker)
            if not reports:
                if not self._open:
                    continue
                offset_range = self._open.pop()
                self._running[worker] = [
                    RangeProgress(
                        self._topic, offset_range, f"{worker}-{len(self._open)}", offset_range.start, 0, 0, 0, worker
                    )
                ]
                continue
            last = reports[-1]
            position = last.position + chance.randrange(SIZE // 12)
            if position >= last.range.end:
                del self._running[worker]
                self.committed += len(last.range)
                seconds = {stage: chance.uniform(0.1, 1 + 3 * (stage == "decode")) for stage in STAGES}
                size = len(last.range)
                newest_ms = int(time.time() * 1000)
                self._progress(RangeCommitted(self._topic, last.range, size, size * 1200, seconds, newest_ms=newest_ms))
            elif chance.random() < 0.003:
                del self._running[worker]
                self._open.insert(0, last.range)
                self._progress(RangeFailed(self._topic, last.range))
            else:
                rows = position - last.range.start
                self._running[worker] = [
                    RangeProgress(self._topic, last.range, last.attempt, position, rows, rows * 1200, 0, worker)
                ]
                self._progress(self._running[worker][-1])

    @property
    def running(self) -> int:
        """Ranges on their way, of those that have said so."""
        return sum(reports[-1].rows > 0 for reports in self._running.values())


@pytest.fixture(scope="module")
def scheduler(chromium: str) -> Iterator[tuple[str, str]]:
    with running_scheduler() as addresses:
        yield addresses


def test_there_is_one_page_however_many_clients_there_are_and_whatever_the_prefix() -> None:
    with running_scheduler(options=("--dashboard-prefix", "/user/ada")) as (address, base):
        for _ in range(2):
            with (
                Client(address) as one,
                Client(address) as other,
                Reporter(one, Progress()),
                Reporter(other, Progress()),
            ):
                wait_for(lambda: "fink_dask_transfers" in metrics(f"{base}/user/ada"), "the metrics")
        with urllib.request.urlopen(f"{base}/user/ada/fink", timeout=PATIENCE_S) as answer:
            page = answer.read().decode()
        assert page.count('href="fink"') == 1
        assert "bokeh" in page
        with Client(address) as client:
            applications = client.run_on_scheduler(
                lambda dask_scheduler: [str(type(each)) for each in dask_scheduler.http_application.applications]
            )
        assert sum("Bokeh" in name for name in applications) == 2  # Dask's and ours


@pytest.mark.parametrize(
    ("partitions", "workers", "topic"),
    [(10, 2, "ftransfer_ztf_2026-02-24_123456"), (200, 100, "ftransfer_lsst_2026-11-01_654321"), (10, 2, HOSTILE)],
    ids=["small", "large", "hostile"],
)
def test_the_page_is_whole_and_readable(
    scheduler: tuple[str, str], tmp_path: Path, partitions: int, workers: int, topic: str
) -> None:
    address, base = scheduler
    progress = Progress()
    with (
        Client(address) as client,
        Reporter(client, progress),
        Browser(f"{base}/status") as browser,
    ):
        transfer = Transfer(progress, topic, partitions, workers)
        # Only what is registered has a page.
        wait_for(lambda: "fink_dask_transfers" in metrics(base), "the metrics")
        browser.call("Page.navigate", url=f"{base}/fink")
        while transfer.committed < 0.4 * transfer.offsets:
            transfer.step()
            shown(browser)  # in the time that takes, others happen
        wait_for(lambda: shown(browser).tiles.get("alerts") == f"{transfer.committed:,}", "the last report")
        # A figure or a list may be drawn after the tiles above them.
        wait_for(lambda: len(browser.texts(".range")) == transfer.running, "the ranges that are read")
        seen = shown(browser)
        assert seen.number("lag") == transfer.offsets - transfer.committed
        assert seen.number("ranges_running") == transfer.running == len(browser.texts(".range"))
        bars, lags = browser.sources("partitions", "lags")
        assert bars["partition"] == lags["partition"] == list(range(partitions))
        assert sum(bars["committed"]) == transfer.committed
        # Nothing sticks out of the window, and nothing lies over something else.
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.overlaps(".tile, h1, h2, .stages, .legend, .range") == []
        assert browser.cut_off(".tile b, #topic") == []
        assert (
            9
            <= browser.evaluate(
                "Bokeh.documents[0].get_model_by_name('partitions-figure').below[0].ticker.desired_num_ticks"
            )
            <= 24
        )
        assert browser.evaluate("document.title") == "Dask: Fink"
        if topic == HOSTILE:
            assert seen.topic.startswith('</div><img src=x onerror="document.title=1">{{ 7 * 7 }}')
            assert "\n" not in seen.topic
            assert metrics(base)["fink_dask_lag"][topic,] == seen.number("lag")
        if partitions > 10:
            keep_picture(browser, "dashboard-large.png", tmp_path)
        # Nor out of half a screen, beside a terminal.
        browser.call("Emulation.setDeviceMetricsOverride", width=640, height=900, deviceScaleFactor=1, mobile=False)
        wait_for(lambda: browser.evaluate("document.documentElement.scrollWidth <= 640"), "a narrower page")
        # On a phone tiles stand two abreast, and a range that is read has its meter yet.
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        wait_for(lambda: browser.evaluate("document.documentElement.scrollWidth <= 390"), "a page for a phone")
        wait_for(lambda: _is_fit_for_a_phone(browser), "tiles and ranges that fit")


def _is_fit_for_a_phone(browser: Browser) -> bool:
    walk = """
        const found = [], walk = (node) => node.querySelectorAll("*").forEach((each) => {
            if (each.matches(".tile, .range, .meter")) found.push(each)
            if (each.shadowRoot) walk(each.shadowRoot)
        })
        walk(document)
        const box = (name) => found.filter((each) => each.matches(name)).map((each) => each.getBoundingClientRect())
    """
    fits = """
        const [first, second] = box(".tile")
        return first.top === second.top && found.every((each) => each.scrollWidth <= each.clientWidth + 1)
            && box(".meter").every((each) => each.width >= 20 && each.right < 390)
    """
    return bool(browser.evaluate(f"(() => {{ {walk} {fits} }})()"))
