"""What is asked while nothing comes: one question at a time, whose answer counts only as long as nothing has come."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fink_dask.errors import BrokerError, BrokerUnavailableError
from fink_dask.kafka import silence as silence_module
from fink_dask.kafka.confluent import SURE_S
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.silence import Silence
from tests.harness.oracle import wait_for


class Asked:
    """Questions that wait for their answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.count = 0
        self.answer: Any = Watermarks(0, 1000)
        self._may_answer = threading.Event()
        monkeypatch.setattr(silence_module.time, "monotonic", lambda: self.now)
        connection: Any = SimpleNamespace(admin=None)
        self.silence = Silence(connection, "topic", OffsetRange(3, 100, 200))
        monkeypatch.setattr(self.silence, "_ask", self._ask)

    def _ask(self) -> Any:
        self.count += 1
        assert self._may_answer.wait(20)
        return self.answer

    def look(self, seconds: float = 3.0, position: int = 100) -> int | None:
        self.now += seconds
        return self.silence.look(position)

    def hear_answer(self, position: int = 100) -> int | None:
        """Have a question asked that is answered, and take the answer."""
        self.look(position=position)
        self._may_answer.set()
        question = self.silence._question
        assert question is not None
        wait_for(question.done, "the answer")
        return self.look(position=position)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_questions_to_a_kafka_that_is_away_do_not_pile_up_however_often_records_come_in_between(asked: Asked) -> None:
    for _ in range(50):
        asked.look()
        asked.silence.hear()
    wait_for(lambda: asked.count, "the question")
    assert asked.count == 1
    asked.hear_answer()
    assert asked.silence.answered_s == 0, "what was true before records came says nothing of what is true now"


@pytest.mark.parametrize(
    ("low", "is_off_the_log", "expected"),
    [(150, True, 150), (900, True, 200), (150, False, None), (0, True, 100), (0, False, None)],
)
def test_a_head_is_gone_only_where_librdkafka_has_found_nothing_there(
    asked: Asked, low: int, is_off_the_log: bool, expected: int | None
) -> None:
    asked.silence.is_off_the_log = is_off_the_log
    asked.answer = Watermarks(low, 1000)
    assert asked.hear_answer() == expected


@pytest.mark.parametrize(
    ("answer", "later", "words"),
    [
        (Watermarks(0, 150), Watermarks(0, 150), r" 150\b"),
        (BrokerError("unknown topic"), BrokerError("unknown topic"), "no longer"),
        # A topic that was made anew is being filled.
        (Watermarks(0, 120), Watermarks(0, 150), r" 150\b"),
    ],
)
def test_what_is_not_what_was_planned_is_believed_when_it_stays_so(
    asked: Asked, answer: Any, later: Any, words: str
) -> None:
    asked.answer = answer
    assert asked.hear_answer() is None
    asked.now += SURE_S
    asked.answer = later
    with pytest.raises(BrokerError, match=words):
        asked.hear_answer()


def test_no_answer_says_nothing(asked: Asked) -> None:
    asked.answer = BrokerUnavailableError("away")
    for _ in range(3):
        assert asked.hear_answer() is None
        asked.now += SURE_S
    assert asked.silence.answered_s == 0
