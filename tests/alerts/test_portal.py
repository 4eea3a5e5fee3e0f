"""Made-up alerts must be those of Fink's portal, or what is tried and measured with them means nothing."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts, made_up_alerts
from tests.alerts.portal import FACTS, describe

COUNTS = {"ztf-full": 93, "lsst-full": 28}
#: Rows from which the share of nulls is told; real packets of LSST are only seven.
FEWEST = 30
#: There are more objects here than in the real packets.
OF_EACH_OBJECT = {"prvDiaSources[].diaObjectId", "prvDiaForcedSources[].diaObjectId"}
every_survey = pytest.mark.parametrize("kind", COUNTS)


@cache
def real(kind: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(FACTS.read_text())[kind]
    return facts


@cache
def made(kind: str) -> dict[str, Any]:
    return describe(avro_schema(kind), list(made_up_alerts(kind, COUNTS[kind])))


@every_survey
def test_fields_have_the_names_and_the_types_of_the_portals_in_its_order(kind: str) -> None:
    assert [(path, each["type"]) for path, each in made(kind)["fields"].items()] == [
        (path, each["type"]) for path, each in real(kind)["fields"].items()
    ]


@every_survey
def test_what_is_always_null_never_or_now_and_then_is_so_here(kind: str) -> None:
    wrong = {}
    for path, facts in real(kind)["fields"].items():
        share, found = facts.get("null", 0), made(kind)["fields"][path].get("null", 0)
        if abs(share - found) > 0.25 or (share == 1 and found < 1):
            wrong[path] = (share, found)
    assert wrong == {}


@every_survey
def test_numbers_have_as_many_digits_the_same_scale_and_repeat_as_often(kind: str) -> None:
    wrong = {}
    for path, facts in real(kind)["fields"].items():
        found = made(kind)["fields"][path]
        if "log" not in facts or facts.get("null", 0) > 0.99:
            continue
        has_few = facts.get("of", 0) > FEWEST and facts["distinct"] < 0.3 * facts["of"]
        if facts.get("digits", 99) < found.get("digits", 99) and found.get("distinct") != 1:
            wrong[path] = ("more digits", facts, found)
        elif facts.get("distinct", FEWEST) > 3 and abs(facts["log"] - found.get("log", 99)) > 1.3:
            wrong[path] = ("another scale", facts, found)
        elif has_few and path not in OF_EACH_OBJECT and found.get("distinct", math.inf) > 3 * facts["distinct"] + 5:
            wrong[path] = ("more values", facts, found)
    assert wrong == {}


@every_survey
def test_lists_are_as_long_and_differ_from_object_to_object(kind: str) -> None:
    for path, quartiles in real(kind)["lengths"].items():
        found = made(kind)["lengths"][path]
        assert 0.6 * quartiles[2] - 2 <= found[2] <= 1.5 * quartiles[2] + 2, path
        assert found[4] <= 1.6 * quartiles[4] + 2, path
        if quartiles[0] < quartiles[4]:
            assert found[0] < found[2] < found[4], path


def test_most_objects_of_ztf_have_one_or_two_detections_among_upper_limits_and_some_have_many() -> None:
    alerts = list(made_up_alerts(AlertKind.ZTF_FULL, COUNTS["ztf-full"]))
    counts = [
        sum(earlier["magpsf"] is not None for earlier in alert["prv_candidates"])
        for alert in alerts
        if alert["prv_candidates"] is not None
    ]
    assert 0.4 < np.mean(np.array(counts) <= 2) < 0.8
    assert max(counts) > 30
    longest = max(len(alert["prv_candidates"] or ()) for alert in alerts)
    assert (
        max(len(alert["prv_candidates"]) for alert in alerts if alert["prv_candidates"] and _detections(alert) <= 2)
        > 0.7 * longest
    ), "the longest history is not that of most detections"


def _detections(alert: dict[str, Any]) -> int:
    return sum(earlier["magpsf"] is not None for earlier in alert["prv_candidates"])


@every_survey
def test_each_section_is_as_large_and_compresses_as_well(kind: str) -> None:
    wrong = {}
    for name, (size, share) in real(kind)["sections"].items():
        found_size, found_share = made(kind)["sections"][name]
        # So little as a score takes is a matter of chance.
        if size > 100 and not (0.6 * size <= found_size <= 1.5 * size and abs(share - found_share) <= 0.15):
            wrong[name] = (size, share, found_size, found_share)
    assert wrong == {}
    assert 0.75 * real(kind)["bytes"][1] < made(kind)["bytes"][1] < 1.2 * real(kind)["bytes"][1]


@pytest.mark.parametrize(
    ("kind", "size", "share"), [(AlertKind.ZTF_LIGHT, 1000, 0.45), (AlertKind.LSST_LIGHT, 1150, 0.72)]
)
def test_a_light_packet_is_flat_and_as_large_as_the_portals(kind: AlertKind, size: int, share: float) -> None:
    full = {field["name"]: field for field in avro_schema(kind.replace("light", "full"))["fields"]}
    detection = full["candidate" if kind.startswith("ztf") else "diaSource"]["type"]
    columns = {field["name"]: field for field in detection["fields"]}
    for field in avro_schema(kind)["fields"]:
        assert field in (columns.get(field["name"]), full.get(field["name"]))
    alerts = list(encoded_alerts(kind, 300))
    data = b"".join(alerts)
    assert 0.8 * size < len(data) / len(alerts) < 1.2 * size
    assert abs(len(pa.compress(data, codec="zstd", asbytes=True)) / len(data) - share) < 0.1
