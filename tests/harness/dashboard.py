"""What the dashboard and the metrics of a running transfer say, and where pictures of them go."""

from __future__ import annotations

import os
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.browser import Browser
from tests.harness.kafka_install import PROJECT_ROOT
from tests.harness.topics import PATIENCE_S

#: Where pictures for the documentation are written to, if at all: tests leave the checkout as it is.
PICTURES = "FINK_DASK_TEST_PICTURES"


@dataclass(frozen=True)
class Shown:
    """What a visitor of the page sees."""

    #: topic, state: whose it is, and how it is.
    topic: str
    state: str
    #: What stands in each tile.
    tiles: dict[str, str]

    def number(self, tile: str) -> float:
        """Read the number in a tile."""
        found = re.search(r"[\d,.]+", self.tiles[tile])
        assert found, self.tiles[tile]
        return float(found[0].replace(",", ""))


def shown(browser: Browser) -> Shown:
    """Read the page; empty while there is nothing yet."""
    names = (
        *("share", "alerts", "alerts_per_second", "bytes_per_second", "lag", "age", "left"),
        *("ranges", "ranges_running", "retries", "quarantined", "lost"),
    )
    # In one look, so that all numbers are of one report.
    values = browser.texts(", ".join(["#topic", "#state", *(f"#{name} b" for name in names)]))
    if len(values) != len(names) + 2:
        return Shown("", "", {})
    return Shown(values[0], values[1], dict(zip(names, values[2:], strict=True)))


def metrics(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Ask for the metrics of fink-dask, as Prometheus does: the values of each, by those of its labels."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("fink_dask_"):
            assert family.documentation
            assert family.type in {"gauge", "counter"}
            values = found.setdefault(family.name + ("_total" if family.type == "counter" else ""), {})
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items(), reverse=True))  # the topic first
                assert labels not in values, f"{sample.name} is there twice for {labels}"
                values[labels] = sample.value
    return found


def keep_picture(browser: Browser, name: str, folder: Path) -> None:
    """Make a picture of the page, for the documentation where that is wanted, and else for the one who runs a test."""
    wanted = os.environ.get(PICTURES)
    browser.picture((PROJECT_ROOT / wanted if wanted else folder) / name)
