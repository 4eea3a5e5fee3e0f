"""Which topics are meant, and what those that join others are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.topics import TopicChoice
from fink_dask.planning.several import joining, other_survey
from tests.harness.ledgers import make_ledger, make_plan


@pytest.mark.parametrize(
    ("held", "topic", "is_warned"),
    [
        (["ftransfer_ztf_2026-02-24_1"], "ftransfer_lsst_2026-02-25_1", True),
        (["ftransfer_ztf_2026-02-24_1"], "ftransfer_ztf_2026-02-25_1", False),
        (["ftransfer_ztf_2026-02-24_1"], "night", False),
        # Whoever has begun both goes on with both.
        (["ftransfer_ztf_2026-02-24_1", "ftransfer_lsst_2026-02-25_1"], "ftransfer_lsst_2026-02-25_1", False),
        (["ftransfer_ztf_2026-02-24_1", "ftransfer_lsst_2026-02-25_1"], "ftransfer_lsst_2026-02-26_1", False),
    ],
)
def test_a_topic_that_joins_those_of_another_survey_is_warned_of(
    tmp_path: Path, held: list[str], topic: str, is_warned: bool
) -> None:
    for each in held:
        make_ledger(tmp_path / "nights" / each, make_plan([OffsetRange(0, 0, 10)], topic=each))
    assert joining(TopicChoice((topic,)), tmp_path / "nights").joins
    assert ("LSST" in other_survey(tmp_path / "nights", topic)) == is_warned
