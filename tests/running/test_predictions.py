"""A topic of FinkAI's predictions becomes the alerts that have some, exactly once, whenever they come."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.existing import Scheduler
from fink_dask.kafka.topics import TopicChoice
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import summarise
from fink_dask.progress.tally import Progress
from fink_dask.running.run import TopicOutcome, run_topics
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.verifying.files import verify_dataset
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import wait_for
from tests.harness.predictions import (
    Predicted,
    candids_of,
    delete_predicted,
    fill_predicted,
    predictions_of,
    read_predicted,
)
from tests.harness.producer import produce
from tests.harness.running import Running

pytestmark = pytest.mark.usefixtures("shared_dask")

COUNT = 300
KILLS = 9


@pytest.fixture
def made(kafka: Any) -> Iterator[Predicted]:
    predicted = fill_predicted(kafka.bootstrap_servers, COUNT)
    yield predicted
    delete_predicted(predicted)


@pytest.fixture
def transfer(made: Predicted, dask_scheduler: str, tmp_path: Path) -> Callable[..., tuple[TopicOutcome, list[str]]]:
    """Return what transfers predictions into `tmp_path`; it says what has become of them, and what a user reads."""

    def run(restart: bool = False, **settings: Any) -> tuple[TopicOutcome, list[str]]:
        notes: list[str] = []
        asked = TransferSettings(
            made.topic, tmp_path / "predicted", KafkaSettings(made.bootstrap), nconsumers=2, survey="ztf", **settings
        )
        where = ClusterChoice(scheduler=Scheduler(dask_scheduler))
        progress = Progress(lambda event: notes.append(str(event)))
        found = run_topics(TopicChoice((made.topic,)), asked, progress, where, restart)
        (joined,) = found.topics
        assert {part.summary.topic for part in found.parts} == {made.topic, made.topic.replace("ai", "ai_feed")}
        assert read_predicted(tmp_path / "predicted") == made.expected()
        for ledger in (joined.ledger, *(part.ledger for part in found.parts)):
            assert verify_dataset(ledger).problems == ()
        return joined, notes

    return run


def test_alerts_come_with_their_predictions_and_a_later_run_adds_what_has_come_since(
    made: Predicted, tmp_path: Path, transfer: Callable[..., tuple[TopicOutcome, list[str]]]
) -> None:
    joined, notes = transfer(partitionby=("time",))
    first = len(made.expected())
    assert (joined.summary.state, joined.summary.alerts, joined.summary.filtered) == ("complete", first, COUNT - first)
    assert first < COUNT
    assert any(f"{COUNT - first} alerts of {COUNT}" in note for note in notes)
    made.predict(predictions_of(candids_of(made.alerts), ["kn@2", "late@7"], seed=1))
    joined, _ = transfer()
    assert joined.summary.run_alerts == len(made.expected()) - first > 0
    # What is no prediction is kept, and said.
    produce(made.bootstrap, made.topic, [b"no JSON"])
    assert transfer()[0].summary.exit_code == 3
    assert {path.name for path in tmp_path.iterdir()} == {
        "predicted",
        "predicted.fink",
        "predicted.topics",
        "predicted.topics.fink",
    }


@pytest.mark.commands
def test_both_datasets_that_it_is_made_of_are_proved_against_kafka(
    kafka: Any, made: Predicted, tmp_path: Path, transfer: Callable[..., tuple[TopicOutcome, list[str]]]
) -> None:
    produce(made.bootstrap, made.topic, [b"no JSON", None])
    transfer()
    where = ("--bootstrap-servers", kafka.bootstrap_servers)
    parts = tmp_path / "predicted.topics"
    compared = run_cli("verify", str(parts), "--against-kafka", "--sample", "2000", *where)
    assert (compared.returncode, "differ" in compared.stdout) == (3, False), compared.stdout
    damaged = sorted((parts / made.topic).rglob("*.parquet"))[0]
    damaged.unlink()
    assert run_cli("verify", str(parts)).returncode == 1
    assert run_cli("repair", str(parts / made.topic), *where).returncode in {0, 3}
    assert run_cli("quarantine", str(parts / made.topic), "--retry").returncode == 3
    transfer()
    # What was made of it, or is part of it, is not taken for it.
    assert run_cli("compact", str(tmp_path / "predicted"), str(tmp_path / "few")).returncode == 0
    for topic, outdir, status in ((made.topic.replace("ai", "ai_feed"), "predicted", 2), (made.topic, "few", 1)):
        refused = run_cli(*transfer_arguments(kafka, topic, tmp_path / outdir))
        assert (refused.returncode, "--outdir" in refused.stderr) == (status, True), refused.stderr
    joined, _ = transfer(restart=True)
    assert joined.summary.run_alerts == len(made.expected())
    assert {path.name for path in tmp_path.iterdir()} == {
        "predicted",
        "predicted.fink",
        "predicted.topics",
        "predicted.topics.fink",
        "few",
        "few.fink",
    }


def test_what_does_not_go_with_predictions_is_refused_before_anything_is_written(
    kafka: Any, made: Predicted, tmp_path: Path
) -> None:
    for words, said in (
        (("-outformat", "avro"), "--outformat avro"),
        (("--since", "6h"), "--since"),
        (("--columns", "jd"), "candid"),
        (("-partitionby", "candid"), "candid"),
    ):
        result = run_cli(*transfer_arguments(kafka, made.topic, tmp_path / "predicted", *words))
        assert (result.returncode, said in result.stderr) == (2, True), result.stderr
    result = run_cli(*transfer_arguments(kafka, "fink_ai_2026-01-01_0", tmp_path / "predicted"))
    assert (result.returncode, "fink_ai_2026-01-01_0" in result.stderr) == (1, True), result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.following
def test_a_follower_adds_predictions_as_they_come_and_ends_with_all_of_them(kafka: Any, tmp_path: Path) -> None:
    made = fill_predicted(kafka.bootstrap_servers, COUNT, messages=False)
    try:
        outdir = tmp_path / "predicted"
        ending = ("--follow", "--idle-timeout", "8s", "--roll-interval", "1s", "-survey", "ztf")
        running = Running(kafka, made.topic, outdir, *ending, slowly=False)
        parts = tmp_path / "predicted.topics"
        running.wait_until(
            lambda: Ledger(parts / made.topic.replace("ai", "ai_feed"), is_of_season=True).exists(), "the alerts"
        )
        for seed, model in enumerate(("rb@1", "late@7")):
            made.predict(predictions_of(candids_of(made.alerts), [model], seed))
            expected = made.expected()

            def has_them(wanted: dict[int, Any] = expected) -> bool:
                joined = Ledger(outdir)
                return joined.exists() and summarise(joined).summary.alerts == len(wanted)

            running.wait_until(has_them, f"the predictions of {model}")
        code, err = running.finish()
        assert code == 0, err
        assert read_predicted(outdir) == made.expected()
        assert run_cli("verify", str(outdir)).returncode == 0
    finally:
        delete_predicted(made)


@pytest.mark.kills
def test_kills_of_one_transfer_lose_and_repeat_no_alert_and_no_prediction(kafka: Any, tmp_path: Path) -> None:
    """Kill it between two commits of alerts, of predictions and of what is joined, while predictions still come."""
    made = fill_predicted(kafka.bootstrap_servers, 4000, messages=False, partitions=6)
    candids = candids_of(made.alerts)
    outdir, chance, killed = tmp_path / "predicted", random.Random(20), Counter[str]()
    parts = tmp_path / "predicted.topics"
    places = {
        "alerts": Ledger(parts / made.topic.replace("ai", "ai_feed"), is_of_season=True),
        "predictions": Ledger(parts / made.topic, is_of_season=True),
        "joined": Ledger(outdir),
    }
    try:
        for round_ in range(3 * KILLS):
            # Something to transfer, and to join, in each round.
            made.predict(predictions_of(chance.sample(candids, 500), ["rb@1", "kn@2"], seed=round_))
            # Of the alerts, all come at first.
            place = "alerts" if round_ < 2 else ("joined", "predictions")[round_ % 2]
            ledger = places[place]
            before = count_of(ledger)
            running = Running(kafka, made.topic, outdir, "-survey", "ztf", slowly=place == "alerts")
            wait_for(lambda: running.is_over or count_of(ledger) > before, f"something of {place}")  # noqa: B023
            time.sleep(chance.random() * 0.2)  # the moment itself: anywhere between two commits
            killed[place] += running.kill()
            if places["joined"].exists():
                read_predicted(outdir, by_the_ledger=True)  # no alert is there twice
            if killed.total() == KILLS:
                break
        assert killed.total() == KILLS
        assert min(killed[place] for place in places) > 0, killed
        result = run_cli(*transfer_arguments(kafka, made.topic, outdir))
        assert result.returncode == 0, result.stderr
        assert read_predicted(outdir) == made.expected()
        for place, ledger in places.items():
            assert verify_dataset(ledger).problems == (), place
            assert [list(path.iterdir()) for path in ledger.staging_path.iterdir()] in ([], [[]] * len(ledger.plans()))
        assert summarise(places["alerts"]).summary.alerts == 4000
        assert summarise(places["predictions"]).summary.alerts == len(made.said)
    finally:
        delete_predicted(made)


def count_of(ledger: Ledger) -> int:
    """Count what was begun and what is committed in a dataset that may not be there yet."""
    with suppress(FileNotFoundError):
        return len(list(ledger.markers_path.iterdir())) + 1000 * len(list(ledger.plans_path.iterdir()))
    return 0
