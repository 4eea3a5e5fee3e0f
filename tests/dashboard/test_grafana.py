"""The Grafana dashboard asks for metrics and labels that there are, and for all metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fink_dask.dashboard.board import Board
from fink_dask.dashboard.metrics import BoardCollector
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeCommitted, TransferStarted
from tests.harness.events import Told, received

ROOT = Path(__file__).resolve().parents[2]
#: Words of PromQL, and Grafana's own.
LANGUAGE = {"by", "sum", "max", "rate", "increase", "topk", "time", "label_values", "__rate_interval"}


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Return the labels of each metric that is served."""
    transfer, board = Told(), Board()
    transfer.take(TransferStarted("topic", 2, 0, 20, 0, None, {0: (20, 0)}))
    transfer.take(RangeCommitted("topic", OffsetRange(0, 0, 10), 10, 100, {}, newest_ms=1))
    transfer.take(received(OffsetRange(0, 10, 20), 5, topic="topic"))  # a response is expected
    board.take(transfer.report())
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "fink-dask.json").read_text())
    return found


def queries(dashboard: dict[str, Any]) -> list[str]:
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*asked, *(each["definition"] for each in dashboard["templating"]["list"] if each["type"] == "query")]


def test_it_asks_for_metrics_and_labels_that_are_served(dashboard: dict[str, Any], served: dict[str, set[str]]) -> None:
    for query in queries(dashboard):
        metrics = set(re.findall(r"fink_dask_\w+", query))
        assert metrics, query
        assert metrics <= served.keys(), query
        common = set.intersection(*(served[metric] for metric in metrics))
        words = set(re.findall(r"[a-z_]+", re.sub(r'"[^"]*"', "", query))) - metrics - LANGUAGE - {"m"}
        assert words <= common, query


def test_legends_name_labels_that_are_left(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            kept = {word for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for word in by.split(", ")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept


def test_panels_lie_beside_each_other(dashboard: dict[str, Any]) -> None:
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_page_lists_every_metric_with_its_labels(served: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "dashboard.md").read_text()
    rows = re.findall(r"^\| `(fink_dask_\w+)` \| \w+ \|([^|]*)\|", page, re.MULTILINE)
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in rows} == served
