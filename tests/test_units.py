"""One thing is said as one."""

from __future__ import annotations

import pytest

from fink_dask.units import format_bytes, per_second, pluralize


@pytest.mark.parametrize(
    ("number", "nouns", "words"),
    [
        (0, ["range"], "0 ranges"),
        (1, ["range"], "1 range"),
        (2000, ["range"], "2,000 ranges"),
        (1, ["more entry", "more entries"], "1 more entry"),
        (7, ["more entry", "more entries"], "7 more entries"),
    ],
)
def test_a_number_of_things_is_in_its_grammatical_number(number: int, nouns: list[str], words: str) -> None:
    assert pluralize(number, *nouns) == words


def test_a_speed_is_in_its_grammatical_number() -> None:
    assert [per_second(speed, "alert") for speed in (0, 0.6, 1.4, 2, 47_581.3)] == [
        *("0 alerts/s", "1 alert/s", "1 alert/s", "2 alerts/s", "47,581 alerts/s")
    ]


def test_room_is_said_in_the_unit_that_fits() -> None:
    assert [format_bytes(size) for size in (0, 3200, 2_100_000, 1_200_000_000_000)] == [
        "0.0 kB",
        "3.2 kB",
        "2.1 MB",
        "1,200.0 GB",
    ]
