"""Peek shows what an astronomer looks for first, on a terminal of any width, and no half of an identifier."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from fink_dask.avro.schema import parse_schema
from fink_dask.show.alert import alert_tree
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts

HISTORY = {AlertKind.ZTF_FULL: "prv_candidates", AlertKind.LSST_FULL: "prvDiaSources"}
FIRST = {
    AlertKind.ZTF_FULL: ["jd", "fid", "magpsf", "sigmapsf", "diffmaglim"],
    AlertKind.LSST_FULL: ["midpointMjdTai", "band", "psfFlux", "psfFluxErr"],
}


def drawn(kind: AlertKind, alert: dict[str, Any], name: str, width: int) -> str:
    """Draw one field of an alert."""
    schema = pa.schema([parse_schema(json.dumps(avro_schema(kind))).arrow.field(name)])
    batch = pa.RecordBatch.from_pylist([{name: alert[name]}], schema=schema)
    output = io.StringIO()
    Console(file=output, width=width).print(alert_tree("an alert", batch))
    return output.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("kind", HISTORY, ids=lambda kind: kind.value)
def test_a_history_shows_time_band_and_brightness_first_and_no_identifier_is_cut(kind: AlertKind, width: int) -> None:
    name = HISTORY[kind]
    alert = next(alert for alert in made_up_alerts(kind, 8) if alert[name])
    text = drawn(kind, alert, name, width)
    header = next(line for line in text.splitlines() if FIRST[kind][0] in line)
    assert header.replace("│", " ").split()[: len(FIRST[kind])] == FIRST[kind]
    assert all(len(line) <= width for line in text.splitlines())
    known = {str(value) for entry in alert[name] for value in entry.values() if isinstance(value, int)}
    assert set(re.findall(r"(?<![\d.-])\d{12,19}(?![\d.])", text)) <= known
    assert "without" in text, "what is left out is named"
    value = FIRST[kind][2]
    newest = [entry for entry in alert[name] if entry[value] is not None][-1]
    assert f"{newest[FIRST[kind][0]]}" in text, "a detection is shown, however many upper limits there are"


def test_an_alert_begins_with_what_was_measured() -> None:
    alert = next(made_up_alerts(AlertKind.ZTF_FULL, 1))
    text = drawn(AlertKind.ZTF_FULL, alert, "candidate", 80)
    fields = list(text.splitlines()[2:8])
    assert all(any(name in line for line in fields) for name in ("jd", "fid", "magpsf", "sigmapsf"))
