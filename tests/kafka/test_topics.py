"""A wrong topic is refused before Kafka is asked, and a survey is read off a name or not guessed."""

from __future__ import annotations

import re

import pytest

from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import (
    alert_topics,
    check_alert_topic,
    check_topic_name,
    schema_topic,
    survey_of,
    topic_hash,
)


@pytest.mark.parametrize("topic", ["ftransfer_ztf_2026-02-24_123456", "a", "A.b_c-9", "...", "x" * 249])
def test_a_name_that_kafka_allows_passes_unchanged(topic: str) -> None:
    assert check_topic_name(topic) == topic


@pytest.mark.parametrize(
    "topic",
    ["", ".", "..", "a b", "a/b", "../x", "a\n", "a\x00", "é", "٣", "x" * 250, "a:b", "-" + "y" * 300_000, "$(x)"],
)
def test_a_name_that_kafka_does_not_allow_is_refused_in_one_short_line(topic: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(repr(topic[:80]))) as caught:
        check_topic_name(topic)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_topic_of_predictions_is_none_of_alerts_and_one_of_schemas_or_of_finkais_jobs_is_neither() -> None:
    with pytest.raises(SettingsError, match="fink-dask transfer"):
        check_alert_topic("fink_ai_lsst")
    with pytest.raises(SettingsError, match="FinkAI"):
        check_topic_name("fink_ai_pre_rb-1_2026-06-07_1")
    assert check_topic_name("fink_ai_lsst") == "fink_ai_lsst"
    with pytest.raises(SettingsError, match=r"ftransfer_ztf_2026-06-07_1\b"):
        check_topic_name(schema_topic("ftransfer_ztf_2026-06-07_1"))
    for name in ("my_fink_ai_lsst", "fink_ai_feed_2026-06-07_1"):
        assert check_alert_topic(name) == name


def test_the_alerts_of_predictions_are_in_the_feed_or_in_the_transfer_of_the_same_request() -> None:
    assert alert_topics("fink_ai_2026-06-07_1", "ztf") == ("fink_ai_feed_2026-06-07_1", "ftransfer_ztf_2026-06-07_1")
    assert alert_topics("fink_ai_2026-06-07_1", None)[1:] == (
        "ftransfer_ztf_2026-06-07_1",
        "ftransfer_lsst_2026-06-07_1",
    )


@pytest.mark.parametrize(
    ("topic", "survey"),
    [
        ("ftransfer_ztf_2026-02-24_123456", "ztf"),
        ("ftransfer_lsst_2026-02-24_123456", "lsst"),
        ("fxmatch_lsst_2026-02-24_1", "lsst"),
        ("fink.ztf.alerts", "ztf"),
        ("fink-lsst", "lsst"),
        ("ztf", "ztf"),
        ("fink_sn_candidates", None),
        ("aztfb_lsstish", None),
        ("ztf_lsst_both", None),
        ("ZTF_alerts", None),
        ("", None),
    ],
)
def test_a_time_scale_is_never_chosen_by_a_guess_at_the_survey(topic: str, survey: str | None) -> None:
    assert survey_of(topic) == survey


def test_names_that_are_made_of_a_topic_stay_what_datasets_on_disk_hold() -> None:
    assert schema_topic("t") == "t_schema"
    assert topic_hash("ftransfer_ztf_2026-02-24_123456") == "f9dbcf5f"
    assert all(re.fullmatch("[0-9a-f]{8}", topic_hash(topic)) for topic in ("", "../..", "x" * 249))
