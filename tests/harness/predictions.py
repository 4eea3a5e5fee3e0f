"""Predictions as models of FinkAI write them, and what is to become of them."""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads

from fink_dask.dataset.read import open_dataset
from tests.alerts.made_up import AlertKind
from tests.harness.oracle import Oracle, fill_topic
from tests.harness.producer import produce
from tests.harness.topics import create_topic, delete_topic

#: How the name of the topic of alerts begins.
FEED = "fink_ai_feed_"
#: A model by its name in the messages, and what its result looks like.
MODELS: dict[str, Callable[[float], Any]] = {
    "rb@1": lambda value: {"predictions": [value, 1 - value]},
    "snn@3": lambda value: {"predictions": value},
    "kn@2": lambda value: [value],
    "late@7": lambda value: value,
}


def candids_of(oracle: Oracle) -> list[int]:
    """List the identifiers of a topic's alerts, in the order of their places."""
    return [oracle.alert(place)["candid"] for place in sorted(oracle.values)]


def message(candid: object, model: str, value: float | None) -> bytes:
    """Write a prediction."""
    result = None if value is None else MODELS[model](value)
    return json.dumps({"source": {"objectId": "ZTF26", "candid": candid}, "bridge": model, "result": result}).encode()


def predictions_of(
    candids: Iterable[int], models: Sequence[str] = ("rb@1", "snn@3", "kn@2"), seed: int = 0
) -> list[bytes]:
    """Make the predictions of alerts: most models have predicted most of them, and a few alerts have none.

    Of some a model says nothing. One in twenty is written twice, and a few are of alerts that are in no topic.
    """
    chance = random.Random(seed)
    made = [
        message(candid, model, chance.random() if chance.random() < 0.95 else None)
        for candid in candids
        for model in models
        if chance.random() < 0.7
    ]
    made += chance.sample(made, len(made) // 20) + [message(number, "rb@1", 0.5) for number in range(1, 6)]
    chance.shuffle(made)
    return made


@dataclass(frozen=True)
class Predicted:
    """A topic of predictions, and the one of their alerts."""

    bootstrap: str
    #: The topic of predictions.
    topic: str
    alerts: Oracle
    #: The predictions, by partition and offset.
    said: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def predict(self, messages: Sequence[bytes]) -> None:
        """Publish predictions, and keep them."""
        for record in produce(self.bootstrap, self.topic, messages):
            self.said[record.partition, record.offset] = messages[record.index]

    def expected(self) -> dict[int, dict[str, float | None]]:
        """Return what each alert has been given, by models: of each the last one, and None for what is no number."""
        found: dict[int, dict[str, float | None]] = {candid: {} for candid in candids_of(self.alerts)}
        for place in sorted(self.said):
            said = json.loads(self.said[place])
            result = said["result"]["predictions"] if isinstance(said["result"], dict) else said["result"]
            if said["source"]["candid"] in found:
                value = result[0] if isinstance(result, list) else result
                found[said["source"]["candid"]][said["bridge"]] = value
        return {candid: given for candid, given in found.items() if given}


def fill_predicted(
    bootstrap: str,
    count: int,
    messages: bool = True,
    *,
    feed: str = FEED,
    kind: AlertKind = AlertKind.ZTF_LIGHT,
    partitions: int = 4,
) -> Predicted:
    """Make both topics, and fill the one of predictions as well, unless that is for later."""
    suffix = f"2026-06-07_{uuid.uuid4().int % 10**9}"
    alerts = fill_topic(bootstrap, f"{feed}{suffix}", kind, count, partitions=partitions)
    made = Predicted(bootstrap, f"fink_ai_{suffix}", alerts)
    create_topic(bootstrap, made.topic, 3)
    if messages:
        made.predict(predictions_of(candids_of(alerts)))
    return made


def delete_predicted(made: Predicted, feed: str = FEED) -> None:
    """Delete all topics of it."""
    alerts = made.topic.replace("fink_ai_", feed)
    for name in (made.topic, alerts, f"{alerts}_schema"):
        delete_topic(made.bootstrap, name, missing_ok=True)


def read_predicted(outdir: Path, by_the_ledger: bool = False) -> dict[int, dict[str, float | None]]:
    """Read what each alert has been given; an alert must not be there twice.

    Anybody reads the directory once a run has ended. Before, files that replace others may be there beside these.
    """
    opened = open_dataset(outdir) if by_the_ledger else pads.dataset(outdir, partitioning="hive")
    table = opened.to_table(columns=["candid", "model_predictions"])
    found: dict[int, dict[str, float | None]] = {}
    for row in table.to_pylist():
        assert row["candid"] not in found, "an alert is there twice"
        found[row["candid"]] = {
            each["model"]: None if math.isnan(each["prediction"]) else each["prediction"]
            for each in row["model_predictions"]
        }
        assert len(found[row["candid"]]) == len(row["model_predictions"]), "a model is there twice"
    return found
