"""A broker that is away is waited for and said once, and its absence is not taken for a quiet topic."""

from __future__ import annotations

import re

import pytest

from fink_dask.errors import BrokerUnavailableError
from fink_dask.following.followers import ReconnectPolicy
from fink_dask.progress.events import Event, Note

AWAY = BrokerUnavailableError("no answer from Kafka", "topic")


def test_an_absence_is_said_once_excused_and_given_up_in_the_end() -> None:
    said: list[Event] = []
    excused: list[float] = []
    patience = ReconnectPolicy(5.0, said.append, excused.append)
    patience.end(0.0)
    assert (said, excused) == ([], [])
    for now in (1.0, 2.0, 4.9):
        patience.wait(AWAY, now)
    patience.end(6.5)
    assert excused == [6.5], "since it last answered, as the first question has waited, too"
    away, back = [event.text for event in said if isinstance(event, Note)]
    assert re.search(f"{AWAY}.* 5 s", away)
    assert " 6 s" in back
    patience.wait(AWAY, 10.0)
    with pytest.raises(BrokerUnavailableError, match=f"^topic: .* 5 s.*{AWAY.message}"):
        patience.wait(AWAY, 15.1)
