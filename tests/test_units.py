"""Numbers are said and read as people write them: one thing as one, and no rate as eight times what was meant."""

from __future__ import annotations

import pytest

from fink_dask.errors import SettingsError
from fink_dask.units import format_bytes, parse_rate, per_second, pluralize, rate_words


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


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5MB/s", 5_000_000),
        ("5MB", 5_000_000),
        ("5M", 5_000_000),
        ("5 MB/s", 5_000_000),
        ("500k", 500_000),
        ("500kB/s", 500_000),
        ("1.5G", 1_500_000_000),
        ("40Mbit/s", 5_000_000),
        ("8kbit/s", 1000),
        ("2MiB/s", 2 * 2**20),
        ("64Ki", 65_536),
        ("5000000", 5_000_000),
    ],
)
def test_a_rate_is_read(text: str, rate: int) -> None:
    assert parse_rate("--limit-rate", text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "fast", "0", "-5M", "5", "7kbit/s", "5Mb/s", "5m", "MB/s", "5MB/min", "1e6", "nan", "inf", "9" * 40, "5MB\n5"],
)
def test_what_is_no_rate_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(SettingsError, match="--limit-rate") as caught:
        parse_rate("--limit-rate", text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("rate", "words"),
    [(1_012_500, "8.1 Mbit/s"), (125e6, "1 Gbit/s"), (99_900, "799 kbit/s"), (1, "8 bit/s"), (0, "0 bit/s")],
)
def test_a_rate_is_said_in_bits(rate: float, words: str) -> None:
    assert rate_words(rate) == words
