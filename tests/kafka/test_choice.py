"""A pattern takes the topics that are meant and no others, and what can match nothing is said before Kafka is asked."""

from __future__ import annotations

import pytest

from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import MAX_TOPICS, TopicChoice, choose_topics, no_such_topic, no_such_topics

LISTED = [
    "__consumer_offsets",
    "fink_ai_lsst",
    "ftransfer_lsst_2026-01-02_7",
    "ftransfer_lsst_2026-01-02_7_schema",
    "ftransfer_lsst_2026-01-01_5",
    "ftransfer_lsst_2025-12-31_5",
    "ftransfer_ztf_2026-01-01_5",
    "x[1]",
]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["ftransfer_lsst_2026-*"], ("ftransfer_lsst_2026-01-01_5", "ftransfer_lsst_2026-01-02_7")),
        (["*_2026-01-0[2-9]_?"], ("ftransfer_lsst_2026-01-02_7",)),
        (["FTRANSFER*"], ()),
        (["*"], tuple(sorted(name for name in LISTED if name.startswith("ftransfer") and "schema" not in name))),
        (["b", "a", "b"], ("b", "a")),
        (["ftransfer_ztf_2026-01-01_5", "*ztf*"], ("ftransfer_ztf_2026-01-01_5",)),
        (["[", "a"], ("a",)),
    ],
)
def test_a_pattern_takes_topics_of_alerts_and_names_count_once(values: list[str], expected: tuple[str, ...]) -> None:
    assert choose_topics(values).of(LISTED) == expected


def test_topics_of_predictions_are_listed_but_not_transferred_with_others() -> None:
    choice = choose_topics(["fink_*"])
    assert choice.of(LISTED) == ()
    assert choice.of(LISTED, predictions=True) == ("fink_ai_lsst",)


def test_one_plain_name_alone_is_a_dataset_of_its_own() -> None:
    assert not choose_topics(["a", "a"]).is_several
    assert choose_topics(["a", "b"]).is_several
    assert choose_topics(["a*"]).is_several


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a b*"], r"'a b\*'"),
        (["../*"], r"'\.\./\*'"),
        (["*\n"], r"'\*\\n'"),
        (["*" * 250], r"'\*{80}'"),
        (["../x"], r"'\.\./x'"),
        (["ftransfer_lsst_2026-01-02_7_schema", "none*"], r"ftransfer_lsst_2026-01-02_7\b"),
        (["a", "fink_ai_x"], "AI"),
        ([], "--topic"),
        ([f"t{number}" for number in range(MAX_TOPICS + 1)], "201"),
    ],
)
def test_what_can_be_no_topic_is_refused_in_one_short_line(values: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        choose_topics(values)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_nothing_matches_is_said_with_what_is_near() -> None:
    choice = TopicChoice(("a",), ("ftransfer_lst_2026-*", "*ztf*"))
    assert choice.unmatched(LISTED) == ["ftransfer_lst_2026-*"]
    words = str(no_such_topics(choice.unmatched(LISTED), LISTED))
    assert "ftransfer_lst_2026-*" in words
    assert "ftransfer_lsst_2026-01-0" in words
    assert "schema" not in words
    words = str(no_such_topics(["~"], LISTED))
    assert "fink-dask topics" in words
    assert not any(name in words for name in LISTED)


def test_a_topic_that_was_mistyped_is_said_with_the_one_that_is_there_and_not_with_another_one_of_its_night() -> None:
    listed = ["ftransfer_ztf_2026-02-24_123456", "ftransfer_ztf_2026-02-24_123456_schema"]
    for mistyped in ("ftransfer_ztf_2026-02-24_12345", "ftranfser_ztf_2026-02-24_123456"):
        said = str(no_such_topic(mistyped, listed))
        assert listed[0] in said
        assert listed[1] not in said
    said = str(no_such_topic("ftransfer_ztf_2026-02-24_987000", listed))
    assert listed[0] not in said
    assert "fink-dask topics" in said
    assert "--wait-for-topic" in said


def test_a_name_whose_end_was_forgotten_is_said_with_the_one_that_begins_so() -> None:
    listed = ["ftransfer_ztf_2026-02-24_1", "ftransfer_ztf_2026-02-26_4"]
    assert "ftransfer_ztf_2026-02-24_1?" in str(no_such_topic("ftransfer_ztf_2026-02-24", listed))


def test_a_hostile_name_can_not_stop_a_pattern() -> None:
    assert choose_topics(["*a" * 100 + "*b"]).of(["a" * 249]) == ()
