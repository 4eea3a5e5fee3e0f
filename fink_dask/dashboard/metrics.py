"""The board as Prometheus metrics, on the scheduler's `/metrics`; labels are topics, partitions and stages only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fink_dask.dashboard.board import Board, Reported
from fink_dask.dashboard.reports import TopicReport
from fink_dask.progress.profile import STAGES

log = logging.getLogger(__name__)

#: Counters: what is counted for each topic for as long as the scheduler lives.
_COUNTERS = (
    ("fink_dask_alerts", "Alerts that were committed to a dataset", "alerts"),
    ("fink_dask_bytes", "Bytes that the committed alerts take in Kafka", "raw_bytes"),
    ("fink_dask_alerts_read", "Alerts that were read, counting those of a retried range again", "alerts_read"),
    ("fink_dask_bytes_read", "Bytes that were read from Kafka, committed or not", "bytes_read"),
    ("fink_dask_received_bytes", "Bytes that have arrived from Kafka, committed or not", "bytes_received"),
    ("fink_dask_wasted_bytes", "Bytes of these that came in vain, as an attempt failed", "bytes_wasted"),
    ("fink_dask_ranges_committed", "Ranges that were committed", "ranges_run"),
    ("fink_dask_filtered", "Alerts for which the condition of a transfer is not true", "filtered"),
    ("fink_dask_quarantined", "Records that could not be decoded and are in quarantine", "quarantined"),
    ("fink_dask_lost", "Offsets that Kafka had removed before they were read", "lost"),
    ("fink_dask_retries", "Attempts at a range after the first one", "retries"),
)
#: Gauges: the state of each topic now, summed over its running transfers.
_GAUGES: tuple[tuple[str, str, Callable[[TopicReport], float | None]], ...] = (
    ("fink_dask_offsets", "Offsets that are planned, or in the topic if it is followed", lambda topic: topic.offsets),
    ("fink_dask_offsets_committed", "Offsets committed, including by earlier runs", lambda topic: topic.committed),
    (
        "fink_dask_offsets_received",
        "Offsets committed, or received for ranges that run",
        lambda topic: topic.committed + topic.received,
    ),
    ("fink_dask_ranges_running", "Ranges that workers consume", lambda topic: len(topic.running) + topic.more_running),
    ("fink_dask_alerts_per_second", "Alerts read per second, lately", lambda topic: topic.alerts_per_second),
    ("fink_dask_received_bytes_per_second", "Bytes received per second, lately", lambda topic: topic.bytes_per_second),
)


class BoardCollector(Collector):
    """Makes metrics from a board whenever they are asked for."""

    def __init__(self, board: Board) -> None:
        #: The board; replaced when the process gets another scheduler, as the process has only one registry.
        self.board = board

    def describe(self) -> list[Metric]:
        """Return nothing, so that nothing is collected before it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; an error costs only these, not the scheduler's own."""
        try:
            yield from list(self._metrics())
        except Exception:
            log.warning("the metrics of transfers could not be made", exc_info=True)

    def _metrics(self) -> Iterator[Metric]:
        running = [(known, topic) for known, topic in self.board.topics() if known.is_running]
        transfers = sum(known.is_running for known in self.board.transfers.values())
        yield GaugeMetricFamily("fink_dask_transfers", "Transfers that are running", value=transfers)
        for name, words, field in _COUNTERS:
            counter = CounterMetricFamily(name, words, labels=["topic"])
            for topic, sums in self.board.counts.items():
                counter.add_metric([topic], sums.get(field, 0))
            yield counter
        yield self._stages()
        for name, words, value in _GAUGES:
            gauge = GaugeMetricFamily(name, words, labels=["topic"])
            for topic, number in _summed(running, value).items():
                gauge.add_metric([topic], number)
            yield gauge
        yield from self._lags(running)

    def _stages(self) -> Metric:
        counter = CounterMetricFamily(
            "fink_dask_stage_seconds", "Time that committed ranges took in each stage", labels=["topic", "stage"]
        )
        for topic, sums in self.board.counts.items():
            for stage in STAGES:
                counter.add_metric([topic, stage], sums.get(f"stage {stage}", 0.0))
        return counter

    def _lags(self, running: list[tuple[Reported, TopicReport]]) -> Iterator[Metric]:
        """Yield what can't be summed: if a topic has several transfers, the worst of them counts."""
        lag = GaugeMetricFamily("fink_dask_lag", "Offsets that are not committed", labels=["topic"])
        partition_lag = GaugeMetricFamily(
            "fink_dask_partition_lag", "Offsets of a partition that are not committed", labels=["topic", "partition"]
        )
        newest = GaugeMetricFamily(
            "fink_dask_newest_alert_timestamp_seconds",
            "Kafka timestamp of the newest committed alert; time() less this is the dataset's freshness",
            labels=["topic"],
        )
        response = GaugeMetricFamily(
            "fink_dask_last_response_age_seconds",
            "Seconds since Kafka last sent something, while something is expected of it",
            labels=["topic"],
        )
        ages: dict[str, float] = {}
        by_topic: dict[str, list[TopicReport]] = {}
        for known, topic in running:
            by_topic.setdefault(topic.topic, []).append(topic)
            quiet_s = known.since(topic.quiet_s)
            if quiet_s is not None:
                ages[topic.topic] = max(quiet_s, ages.get(topic.topic, 0.0))
        for name, age_s in ages.items():
            response.add_metric([name], age_s)
        for name, reports in by_topic.items():
            lag.add_metric([name], max(report.lag for report in reports))
            lags: dict[int, int] = {}
            for report in reports:
                for item in report.partitions:
                    lags[item.partition] = max(item.lag, lags.get(item.partition, 0))
            for partition, offsets in lags.items():
                partition_lag.add_metric([name, str(partition)], offsets)
            stamps = [report.newest_ms for report in reports if report.newest_ms is not None]
            if stamps:
                newest.add_metric([name], min(stamps) / 1000)
        yield from (lag, partition_lag, newest, response)


def _summed(
    running: list[tuple[Reported, TopicReport]], value: Callable[[TopicReport], float | None]
) -> dict[str, float]:
    sums: dict[str, float] = {}
    for _, topic in running:
        sums[topic.topic] = sums.get(topic.topic, 0) + (value(topic) or 0)
    return sums


_collector: BoardCollector | None = None


def collect_metrics(board: Board) -> None:
    """Serve the metrics of a board, instead of those of an earlier scheduler of this process."""
    global _collector  # noqa: PLW0603 - a process has only one registry
    if _collector is None:
        _collector = BoardCollector(board)
        REGISTRY.register(_collector)
    _collector.board = board
