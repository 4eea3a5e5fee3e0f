"""Of FinkAI's predictions and their alerts, our files have the rows that Fink's own client writes."""

from __future__ import annotations

import subprocess
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from benchmarks.environments import client_environment, python_of
from tests.alerts.made_up import AlertKind
from tests.harness.cli import environment, run_cli, transfer_arguments
from tests.harness.predictions import FEED, delete_predicted, fill_predicted
from tests.harness.producer import produce

pytestmark = pytest.mark.readers

#: The client as it is, but it waits for seconds instead of five minutes where a prediction is lacking.
CLIENT = """
import fink_client.scripts.finkctl_transfer as transfer
from fink_client.scripts.finkctl import cli

transfer._AI_IDLE_TIMEOUT = 15
cli()
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "count", "feed"),
    [(AlertKind.ZTF_LIGHT, 10_000, FEED), (AlertKind.ZTF_FULL, 200, "ftransfer_ztf_")],
    ids=str,
)
def test_the_rows_are_those_of_finks_own_client(
    kafka: Any, tmp_path: Path, kind: AlertKind, count: int, feed: str
) -> None:
    made = fill_predicted(kafka.bootstrap_servers, count, feed=feed, kind=kind)
    alerts = made.topic.replace("fink_ai_", feed)
    twice = [made.alerts.values[place] for place in sorted(made.alerts.values)[: count // 100]]
    produce(kafka.bootstrap_servers, alerts, twice)  # Fink delivers at least once
    try:
        by = ("-partitionby", "time")
        result = run_cli(*transfer_arguments(kafka, made.topic, tmp_path / "ours", "-survey", "ztf", *by))
        assert result.returncode == 0, result.stderr
        _transfer_with_client(kafka, made.topic, tmp_path)
    finally:
        delete_predicted(made, feed)
    ours, theirs = (pads.dataset(tmp_path / name, partitioning="hive").to_table() for name in ("ours", "theirs"))
    assert ours.num_rows == theirs.num_rows > 0.9 * count
    types = {field.name: str(field.type) for field in ours.drop_columns(["kafka_partition", "kafka_offset"]).schema}
    assert types == {field.name: str(field.type) for field in theirs.schema}
    assert rows_of(ours.select(theirs.column_names)) == rows_of(theirs)


def rows_of(table: pa.Table) -> Counter[str]:
    """Count rows, whose models are in no order; as text, because a number that is none equals nothing."""
    rows = table.to_pylist()
    for row in rows:
        row["model_predictions"].sort(key=lambda each: each["model"])
    return Counter(map(repr, rows))


def _transfer_with_client(kafka: Any, topic: str, root: Path) -> None:
    home = root / "home"
    (home / ".finkclient").mkdir(parents=True)
    (home / ".finkclient" / "ztf_credentials.yml").write_text(
        f"survey: ztf\nusername: test\ngroupid: {uuid.uuid4()}\nservers: {kafka.bootstrap_servers}\nmaxtimeout: 3\n"
    )
    words = ["transfer", "-survey", "ztf", "-topic", topic, "-outdir", "theirs", "-partitionby", "time"]
    subprocess.run(
        [python_of(client_environment()), "-c", CLIENT, *words],
        cwd=root,
        env=environment({"HOME": str(home), "MPLBACKEND": "Agg"}),
        capture_output=True,
        check=True,
        timeout=480,
    )
