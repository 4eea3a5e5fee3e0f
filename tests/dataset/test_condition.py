"""A condition takes the alerts that it says, runs nothing, and is refused before anything is consumed."""

from __future__ import annotations

import operator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.dataset.condition import read_condition
from fink_dask.errors import SettingsError

ROWS = pa.RecordBatch.from_arrays(
    [
        pa.array([{"magpsf": 17.0, "fid": 1, "rb": None}, {"magpsf": 19.0, "fid": 2, "rb": 0.5}, None]),
        pa.array(["SN candidate", None, "AGN"]),
        pa.array(["a", "b", "c"]),
        pa.array([True, None, False]),
        pa.array([2**53 + 1, 2**53, 2**53 + 2]),
        pa.array([datetime(2026, 2, day, tzinfo=UTC) for day in (23, 24, 25)], pa.timestamp("ms", "UTC")),
        pa.array([[1], [], None]),
    ],
    names=["candidate", "finkclass", "class", "ok", "candid", "seen", "history"],
)

CASES = [
    ('candidate.magpsf < 18 and finkclass == "SN candidate"', [0]),
    ("candidate.magpsf < 18 or finkclass == 'AGN'", [0, 2]),
    ('not finkclass == "AGN"', [0]),
    ('finkclass != "AGN"', [0]),
    ("finkclass is None", [1]),
    ("candidate.rb is not None", [1]),
    ("candidate.fid is None", [2]),
    ('`class` in ["a", "c"]', [0, 2]),
    ('`class` not in ("a",)', [1, 2]),
    ("finkclass not in ['AGN']", [0]),
    ("finkclass in []", []),
    ("16 < candidate.magpsf <= 19", [0, 1]),
    ("ok", [0]),
    ("not ok", [2]),
    ("ok == False", [2]),
    ("-candidate.magpsf < -18", [1]),
    ("candidate.magpsf - 2 * candidate.fid > 15.0", []),
    ("candidate.magpsf - 2 * candidate.fid >= 15", [0, 1]),
    ("candidate.fid / 2 == 0.5", [0]),
    ("candidate.fid / 0 > 1", [0, 1]),
    (f"candid == {2**53 + 1}", [0]),
    (f"candid in [{2**53}, {2**53 + 2}]", [1, 2]),
    ("seen >= '2026-02-24T00:00:00Z'", [1, 2]),
    ("candid == 1 or True", [0, 1, 2]),
]


@pytest.mark.parametrize(("text", "taken"), CASES, ids=[text for text, _ in CASES])
def test_the_alerts_are_taken_of_which_it_is_true(text: str, taken: list[int]) -> None:
    condition = read_condition(text, ROWS.schema)
    assert [index for index, is_true in enumerate(condition.is_true(ROWS)) if is_true] == taken
    assert read_condition(condition.text, ROWS.schema) == condition, "one form for all ways to write it"
    assert condition.is_true(ROWS.slice(0, 0)).tolist() == []


def test_it_is_the_same_condition_however_it_is_written() -> None:
    first, second = '  candidate.magpsf<18 and(`class`=="a") ', "candidate.magpsf < 18 and `class` == 'a'"
    assert read_condition(first, ROWS.schema) == read_condition(second, ROWS.schema)
    assert read_condition(first, ROWS.schema).columns == ("candidate.magpsf", "class")


REFUSED = [
    ("magpsf < 18", "is candidate.magpsf meant?"),
    ("finkclas == 'a'", "is finkclass meant?"),
    ("nothing_like_it == 1", "no column nothing_like_it"),
    ("candidate.magpsf.x == 1", "no column"),
    ("candidate < 1", "a struct"),
    ("history == 1", "a list"),
    ("finkclass < 3", "does not go together"),
    ("candidate.fid == 99999999999999999999999", "does not go together"),
    ("seen > 'yesterday'", "does not go together"),
    ("ok and candidate.fid", "does not go together"),
    ("finkclass", "true or false"),
    ("candidate.fid + 1", "true or false"),
    ("1 == 1", "no column"),
    ("", "invalid syntax"),
    ("a b", "invalid syntax"),
    ("candidate.fid = 1", "invalid syntax"),
    ('"\0" == finkclass', "null bytes"),
    ("(" * 500 + "ok" + ")" * 500, "nested"),
    ("not " * 450 + "ok", "200 parts"),
    (" or ".join(["ok"] * 300), "200 parts"),
    ("ok" + " " * 3000, "2,000 characters"),
    ('__import__("os").system("touch x")', "not understood"),
    ("(lambda: ok)()", "not understood"),
    ("[ok for ok in ok]", "not understood"),
    ('f"{finkclass}" == "a"', "not understood"),
    ("candidate.fid ** 1000 > 1", "not understood"),
    ('finkclass == b"a"', "not understood"),
    ("finkclass == None", "not understood"),
    ("candid == 1j", "not understood"),
    ("ok if ok else ok", "not understood"),
    ("(ok := True)", "not understood"),
    ("finkclass[0] == 'a'", "not understood"),
    ("''.x == 1", "not understood"),
    ("candidate.fid in 3", "does not belong there"),
    ("candidate.fid in [candid]", "does not belong there"),
    ("finkclass is 'a'", "does not belong there"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_what_is_no_condition_on_these_columns_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")) as refused:
        read_condition(text, ROWS.schema)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


NUMBERS = st.integers(-5, 5)
SIGNS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
OPERANDS = st.sampled_from(["x", "y"]) | NUMBERS.map(str)
SUMS = st.builds("({} {} {})".format, OPERANDS, st.sampled_from("+-*"), OPERANDS)
COMPARISONS = st.builds("{} {} {}".format, OPERANDS | SUMS, st.sampled_from(sorted(SIGNS)), OPERANDS | SUMS)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda parts: (
        st.builds("({} and {})".format, parts, parts) | st.builds("({} or {})".format, parts, parts)
        | st.builds("not {}".format, parts.map("({})".format))
    ),
    max_leaves=6,
)  # fmt: skip


@given(CONDITIONS.map("x == y or ({})".format), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8))
def test_a_condition_means_what_it_means_in_python(text: str, pairs: list[tuple[int, int]]) -> None:
    rows: Any = pa.RecordBatch.from_arrays(
        [pa.array([x for x, _ in pairs], pa.int64()), pa.array([y for _, y in pairs], pa.int64())], names=["x", "y"]
    )
    expected = [bool(eval(text, {"x": x, "y": y})) for x, y in pairs]
    assert read_condition(text, rows.schema).is_true(rows).tolist() == expected
