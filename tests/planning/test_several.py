"""Which topics are meant, and what those that join others are told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.topics import TopicChoice
from fink_dask.planning.forecast import Machine
from fink_dask.planning.several import Topics, joining, mixed_surveys, settings_of_all
from fink_dask.settings import KafkaSettings, TransferSettings
from tests.harness.ledgers import make_ledger, make_plan

FIRST, NEXT, LSST = "ftransfer_ztf_2026-02-24_1", "ftransfer_ztf_2026-02-25_1", "ftransfer_lsst_2026-02-25_1"


@pytest.mark.parametrize(
    ("held", "topics", "is_warned"),
    [
        ([FIRST], [LSST], True),
        ([], [FIRST, LSST], True),
        ([FIRST], [NEXT, LSST], True),
        ([], [FIRST, NEXT], False),
        ([FIRST], [NEXT], False),
        ([FIRST], ["night"], False),
        # Whoever has begun both goes on with both.
        ([FIRST, LSST], [LSST], False),
        ([FIRST, LSST], [FIRST, "ftransfer_lsst_2026-02-26_1"], False),
    ],
)
def test_a_directory_that_will_hold_alerts_of_two_surveys_is_warned_of_once(
    tmp_path: Path, held: list[str], topics: list[str], is_warned: bool
) -> None:
    """No table holds both: who learns that at the first export has to move gigabytes, and their ledgers."""
    for each in held:
        make_ledger(tmp_path / each, make_plan([OffsetRange(0, 0, 10)], topic=each))
    said: list[Any] = []
    settings = TransferSettings(topics[0], tmp_path, KafkaSettings("127.0.0.1:1"))
    progress: Any = said.append
    run = Topics(TopicChoice(tuple(topics), joins=bool(held)), settings, progress, False, Machine(1))
    for each in topics:
        transfer: Any = SimpleNamespace(topic=each, error=None, begin=lambda: None, is_open=True)
        run.begin(transfer)
    warnings = [note.text for note in said if "LSST and ZTF" in note.text and "--outdir" in note.text and note.warning]
    assert len(warnings) == len(said) == is_warned
    assert bool(mixed_surveys(tmp_path, topics)) == is_warned, "a dry run says the same"


@pytest.mark.parametrize(
    ("choice", "is_begun_like_them"),
    [
        (TopicChoice((NEXT,), joins=True), True),
        (TopicChoice((), (f"{NEXT}*",)), True),
        (TopicChoice((), ("*",)), True),
        (TopicChoice((LSST,), joins=True), False),
        (TopicChoice((NEXT, LSST)), False),
    ],
    ids=["a name", "a pattern of new ones", "a pattern of all", "another survey", "both surveys"],
)
def test_a_night_that_joins_others_is_begun_as_they_were_whatever_else_is_asked_for(
    tmp_path: Path, choice: TopicChoice, is_begun_like_them: bool
) -> None:
    make_ledger(tmp_path / FIRST, make_plan([OffsetRange(0, 0, 10)], topic=FIRST))
    asked = TransferSettings(NEXT, tmp_path, KafkaSettings("127.0.0.1:1"))
    assert settings_of_all(asked, choice).partitionby == (("class",) if is_begun_like_them else None)


def test_a_pattern_takes_no_topic_again_that_is_there_under_another_name(tmp_path: Path) -> None:
    make_ledger(tmp_path / "alerts", make_plan([OffsetRange(0, 0, 10)], topic=FIRST))
    choice = joining(TopicChoice((), ("ftransfer_ztf_*",)), tmp_path)
    assert choice.of([FIRST, NEXT]) == (NEXT,), "each of its alerts would be there twice"
    assert choice.left_out == {FIRST: tmp_path / "alerts"}
    with pytest.raises(LedgerError, match="already"):
        joining(TopicChoice((FIRST, NEXT)), tmp_path)
