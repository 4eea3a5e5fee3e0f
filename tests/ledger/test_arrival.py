"""What a script reads of a transfer that runs is what has arrived by then, or nothing."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import Arrival, Phase, read_arrival, write_arrival

ARRIVAL = Arrival(0.0, Phase.RECEIVING, 800, 8_000_000, 0, 250_000.0, 2_000_000, 8.0, None, False, 300.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "alerts")
    found.path.mkdir()
    return found


def test_what_has_arrived_is_kept_and_read_as_long_as_it_says_something(ledger: Ledger) -> None:
    assert read_arrival(ledger, 10) is None
    arrival = replace(ARRIVAL, at=time.time())
    write_arrival(ledger, arrival)
    assert read_arrival(ledger, 10) == arrival
    write_arrival(ledger, replace(arrival, at=arrival.at - 20))
    assert read_arrival(ledger, 10) is None


def test_time_passes_between_two_notes(ledger: Ledger) -> None:
    write_arrival(ledger, replace(ARRIVAL, at=time.time() - 5, quiet_s=2.0))
    found = read_arrival(ledger, 60)
    assert found is not None
    assert found.quiet_s is not None
    assert found.quiet_s >= 7


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"{}", b'{"at": "x"}', b"\xff", b"[" * 100_000),
        *(
            json.dumps({**asdict(ARRIVAL), "at": time.time(), name: value}).encode()
            for name, value in (
                *(("phase", "asleep"), ("quiet_s", math.inf), ("offsets", None), ("offsets", "many")),
                *(("bytes_left", 10**30), ("bytes_per_second", math.nan), ("more", 1), ("at", [1])),
            )
        ),
    ],
)
def test_what_is_no_note_of_it_is_none(ledger: Ledger, text: bytes) -> None:
    (ledger.path / "arrival.json").write_bytes(text)
    assert read_arrival(ledger, 1e12) is None
