"""A condition takes the alerts that it says, runs nothing, and is refused before anything is consumed."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.errors import SettingsError
from fink_dask.where.condition import bind_condition
from fink_dask.where.language import MAX_LENGTH, Expression, parse_condition
from tests.harness.examples import examples

BIG = 2**53
ROWS = pa.RecordBatch.from_arrays(
    [
        pa.array([{"magpsf": 17.0, "fid": 1, "rb": None}, {"magpsf": 19.0, "fid": 2, "rb": 0.5}, None],
                 pa.struct([("magpsf", pa.float64()), ("fid", pa.int32()), ("rb", pa.float64())])),
        pa.array(["SN candidate", None, "AGN"]),
        pa.array(["a", "b", 'c"\\']),
        pa.array([True, None, False]),
        pa.array([BIG + 1, BIG, BIG + 2]),
        pa.array([datetime(2026, 2, day, tzinfo=UTC) for day in (23, 24, 25)], pa.timestamp("ms", "UTC")),
        pa.array([datetime(2026, 2, day) for day in (23, 24, 25)], pa.timestamp("ns")),
        pa.array([date(2026, 2, day) for day in (23, 24, 25)], pa.date32()),
        pa.array([time(hour) for hour in (1, 2, 3)], pa.time64("us")),
        pa.array([Decimal("1.10"), Decimal("-2.05"), None], pa.decimal128(6, 2)),
        pa.array([Decimal("1.10"), Decimal("-2.05"), None], pa.decimal256(60, 2)),
        pa.array([0.65, -0.0, math.nan], pa.float32()),
        pa.array([[1], [], None]),
        pa.array([{"member0": 5, "member1": None}, {"member0": None, "member1": "x"}, None]),
        pa.array([b"x", b"y", None]),
        pa.nulls(3),
    ],
    names=["candidate", "finkclass", "in", "ok", "candid", "seen", "local", "night", "hour", "price", "exact", "score",
           "history", "either", "stamp", "nothing"],
)  # fmt: skip

CASES = [
    ('candidate.magpsf < 18 and finkclass == "SN candidate"', [0]),
    ("candidate.magpsf < 18 or finkclass == 'AGN'", [0, 2]),
    ('not finkclass == "AGN"', [0]),
    ('finkclass != "AGN"', [0]),
    ('finkclass > "B"', [0]),
    ("finkclass is null", [1]),
    ("candidate.rb is not null", [1]),
    ("candidate.fid IS None", [2]),
    ("candidate is null", [2]),
    ("history is not null", [0, 1]),
    ("stamp is null or nothing is not null", [2]),
    ('`in` in ["a", "c\\"\\\\"]', [0, 2]),
    ("`in` not in ['a']", [1, 2]),
    ("finkclass not in ['AGN']", [0]),
    ("finkclass in ['AGN', 'AGN', 'x']", [2]),
    ("16 < candidate.magpsf <= 19", [0, 1]),
    ("18 > candidate.magpsf", [0]),
    ("ok", [0]),
    ("not ok", [2]),
    ("ok == false", [2]),
    ("ok in [true, FALSE]", [0, 2]),
    ("(candidate.magpsf < 18) == ok", [0]),
    ("-candidate.magpsf < -18", [1]),
    ("candidate.magpsf - 2 * candidate.fid > 15.0", []),
    ("candidate.magpsf - 2 * candidate.fid >= 15", [0, 1]),
    ("candidate.fid / 2 == 0.5", [0]),
    ("candidate.fid / 0 > 1", [0, 1]),
    ("candidate.magpsf > candidate.fid", [0, 1]),
    (f"candid == {BIG + 1}", [0]),
    (f"candid in [{BIG}, {BIG + 2}]", [1, 2]),
    (f"candid not in [{BIG + 1}]", [1, 2]),
    ("candid > candidate.fid", [0, 1]),
    ("candidate.fid == 1.0e0", [0]),
    ("seen >= '2026-02-24T00:00:00Z'", [1, 2]),
    ("seen >= '2026-02-24'", [1, 2]),
    ("seen == '2026-02-24T01:00:00+01:00'", [1]),
    ("seen in ['2026-02-23', '2026-02-25 00:00']", [0, 2]),
    ("local < '2026-02-23T00:00:00.000000001'", [0]),
    ("night > '2026-02-24'", [2]),
    ("night in ['2026-02-23']", [0]),
    ("hour <= '02:00:00'", [0, 1]),
    ("price < 1.1", [1]),
    ("price in [1.1, 3]", [0]),
    ("exact == -2.05", [1]),
    ("score == 0.65", [0]),
    ("score in [0.65, 0]", [0, 1]),
    ("score not in [0.65]", [1, 2]),
    ("score == score", [0, 1]),
    ("score != 1", [0, 1, 2]),
    ("not score < 1", [2]),
    ("either.member0 == 5", [0]),
    ("either.member1 == 'x'", [1]),
    ("either.member1 is null", [0, 2]),
    ("candid == 1 or True", [0, 1, 2]),
    ("candid == 1 and not false", []),
]


@pytest.mark.parametrize(("text", "taken"), CASES, ids=[text for text, _ in CASES])
def test_the_alerts_are_taken_of_which_it_is_true(text: str, taken: list[int]) -> None:
    condition = bind_condition(text, ROWS.schema)
    assert [index for index, is_true in enumerate(condition.is_true(ROWS)) if is_true] == taken
    assert condition.is_true(ROWS.slice(0, 0)).tolist() == []
    assert condition.is_true(ROWS.slice(1)).tolist() == condition.is_true(ROWS)[1:].tolist()
    # Nothing but these columns is needed.
    names = {column.split(".")[0] for column in condition.columns}
    assert condition.is_true(ROWS.select(sorted(names))).tolist() == condition.is_true(ROWS).tolist()


FORMS = [
    ('  candidate.magpsf<18 AND(`in`=="a") ', 'candidate.magpsf < 18 and `in` == "a"'),
    ("ok or (ok or not(ok))", "ok or ok or not ok"),
    ("(ok and ok) or (ok)", "ok and ok or ok"),
    ("ok and (ok or ok)", "ok and (ok or ok)"),
    ("not (ok and ok)", "not (ok and ok)"),
    ("1 < candid <= 2", "1 < candid and candid <= 2"),
    ("candid in[ 1,2 , -3 ]", "candid in [1, 2, -3]"),
    ("finkclass in ['it\\'s', \"a\\\"b\"]", 'finkclass in ["it\'s", "a\\"b"]'),
    ("score<18.50 or score>1e3", "score < 18.5 or score > 1000"),
    ("score==.5 or score==007", "score == 0.5 or score == 7"),
    ("score - (score - 1) < - - 2", "score - (score - 1) < 2"),
    ("(score - score) - 1 < 1e-40", "score - score - 1 < 1E-40"),
    ("(score + 1) * -(score) == -0", "(score + 1) * -score == 0"),
    ("((score < 1)) == (ok)", "(score < 1) == ok"),
    ("candid is  not\n None", "candid is not null"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "form"), FORMS, ids=[form for _, form in FORMS])
def test_it_is_the_same_condition_however_it_is_written(text: str, form: str) -> None:
    assert str(parse_condition(text)) == form
    assert str(parse_condition(form)) == form
    assert parse_condition(form) == parse_condition(text)


# With each, the words that a reader of the line would miss, and at which character it is wrong.
REFUSED = [
    ("magpsf < 18", "candidate.magpsf 1"),
    ("ok and finkclas == 'a'", "finkclass 8"),
    ("finkclass == Unknown", "column quotes 14"),
    ("candidate.magpsf.x == 1", "column 1"),
    ("kafka_offset < 10", "column 1"),
    ("candidate < 1", "struct candidate.magpsf"),
    ("either == 1", "struct either.member0"),
    ("history == 1", "list null 1"),
    ("stamp == 'x'", "binary null 1"),
    ("nothing == 1", "null 1"),
    ("finkclass < 3", "finkclass text quotes 13"),
    ("candidate.magpsf < '18'", "candidate.magpsf double 20"),
    ("candidate.magpsf < 1e309", "candidate.magpsf double 20"),
    ("score < 1e39", "score float 9"),
    ("candidate.fid == 1.5", "candidate.fid int32 18"),
    ("candidate.fid == 3000000000", "candidate.fid int32 18"),
    ("candid == 99999999999999999999999", "candid int64 11"),
    ("candid == 1e300", "candid int64 11"),
    ("candid in [1, 'x']", "candid int64 15"),
    ("candid < score", "int64 float"),
    ("candid - 1 == 2", "64 round"),
    ("-candid == 2", "64 round"),
    ("finkclass + 1 == 2", "text number"),
    ("score + 'x' == 2", "number 9"),
    ("seen > 'yesterday'", 'seen UTC "2026-02-24T12:00:00"'),
    ("seen > 2460000", 'seen UTC "2026-02-24T12:00:00"'),
    ("local > '2026-02-24T00:00:00Z'", "local timestamp[ns] 9"),
    ("seen > local", "UTC timestamp[ns]"),
    ("night > '24.2.2026'", 'night "2026-02-24" 9'),
    ("hour > 'noon'", 'hour "12:00:00" 8'),
    ("price < 1.125", "price decimal128 9"),
    ("price == exact", "decimal128 decimal256"),
    ("ok == 1", "ok bool 7"),
    ("ok < false", "true == !="),
    ("ok and candidate.fid", "int32 true false 8"),
    ("finkclass", "text true false"),
    ("candidate.fid + 1", "double true false"),
    ("'x' or ok", "true false 1"),
    ("1 == 1", "column"),
    ("ok and 1 == 1", "column 8"),
    ("ok and 1 in [1]", "column 8"),
    ("ok and 1 is null", "column 8"),
    ("true", "column"),
    ("", "column number end"),
    ("ok ok", "operator quotes 4"),
    ("candidate.fid = 1", "== 15"),
    ("ok && ok", "and 4"),
    ("ok || ok", "or 4"),
    ("!ok", "not 1"),
    ("finkclass == 'SN", "end 14"),
    ("finkclass == null", "is not null 14"),
    ("finkclass in []", "column number 15"),
    ("finkclass in ('a', 'b')", "[ 14"),
    ("candidate.fid in [candid]", "list numbers 19"),
    ("finkclass is 'a'", "null 14"),
    ("candidate. == 1", "field 12"),
    ("candidate.in == 1", "backticks 11"),
    ("finkclass == '\\n'", "backslash 15"),
    ("finkclass == 'a\x1b[31m'", "unprintable 14"),
    ("finkclass == '\udcff'", "unprintable 14"),
    ("finkclass\u202e == 'a'", "language 10"),
    ("\0 == finkclass", "language 1"),
    ("candid == 1e99999999999999999999", "column 11"),
    (f"candid == {'9' * 101}", "column 11"),
    ("(" * 500 + "ok" + ")" * 500, "levels 50"),
    ("not " * 450 + "ok", "levels 50"),
    ("-" * 450 + "score < 1", "levels 50"),
    ("+".join(["score"] * 450) + " < 1", "levels 50"),
    # The middle of each is there twice.
    ("(ok == " * 20 + "ok" + " == ok)" * 20, "parts 1,000"),
    (" or ".join(["ok"] * 1500), "parts 1,000"),
    ("ok" + " " * MAX_LENGTH, "10,000"),
    (" or ".join([f"{'a' * 99}.{'b' * 99}<1"] * 49), "10,000"),
    ('__import__("os").system("touch x")', "operator 11"),
    ("(lambda: ok)()", "language 8"),
    ("ok if ok else ok", "operator 4"),
    ("candidate.fid ** 1000 > 1", "column 16"),
    ("finkclass[0] == 'a'", "operator 10"),
    ("(ok := True)", "language 5"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[ascii(text[:40]) for text, _ in REFUSED])
def test_what_is_no_condition_on_these_columns_is_refused_in_one_line_that_says_where(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        bind_condition(text, ROWS.schema)
    for word in words.split():
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(refused.value)), word
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


Answer = Any
SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


def plainly(node: Expression, row: dict[str, Any]) -> Answer:
    """Evaluate a condition on one row in plain Python; None is null."""
    if node.op == "column":
        return row[str(node.value)]
    if node.is_literal:
        return float(node.value) if isinstance(node.value, Decimal) else node.value
    values = [plainly(part, row) for part in node.parts]
    match node.op:
        case "and":
            return False if False in values else None if None in values else True
        case "or":
            return True if True in values else None if None in values else False
        case "is null":
            return values[0] is None
        case "is not null":
            return values[0] is not None
    if values[0] is None or None in values:
        return None
    match node.op:
        case "not":
            return not values[0]
        case "negative":
            return -values[0]
        case "in":
            return values[0] in values[1:]
        case "not in":
            return values[0] not in values[1:]
        case "/":
            return values[0] / values[1] if values[1] else math.copysign(math.inf, values[0]) if values[0] else math.nan
    return SIGNS[node.op](*values)


INTEGERS = st.integers(-3, 3).map(str)
NUMBERS = INTEGERS | st.sampled_from(["0.5", "-1.5", "2e0"])
SUMS = st.recursive(
    st.sampled_from(["x", "y"]) | NUMBERS,
    lambda parts: (
        st.builds("({} {} {})".format, parts, st.sampled_from("+-*"), parts) | st.builds("-({})".format, parts)
    ),
    max_leaves=4,
)
COMPARE = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
MEMBER = st.sampled_from(["in", "not in"])
NAMES = st.sampled_from(["'a'", "'b'", '"c d"'])
COMPARED = (
    st.builds("{} {} {}".format, st.just("x") | SUMS.map("({} + x)".format), COMPARE, SUMS)
    | st.builds("{} {} {}".format, INTEGERS, COMPARE, st.just("y"))
    | st.builds("x {} [{}, {}]".format, MEMBER, NUMBERS, NUMBERS)
    | st.builds("y {} [{}, {}]".format, MEMBER, INTEGERS, INTEGERS)
    | st.builds("name {} {}".format, COMPARE, NAMES)
    | st.builds("name {} [{}, {}]".format, MEMBER, NAMES, NAMES)
    | st.builds("{} is {}".format, st.sampled_from(["x", "name", "ok"]), st.sampled_from(["null", "not null"]))
    | st.sampled_from(["ok", "ok == true", "ok != false", "-2 <= y < x"])
)
CONDITIONS = st.recursive(
    COMPARED,
    lambda parts: (
        st.builds("({} {} {})".format, parts, st.sampled_from(["and", "or"]), parts)
        | st.builds("not ({})".format, parts)
    ),
    max_leaves=6,
)
VALUES = st.none() | st.integers(-3, 3)
TABLES = st.lists(
    st.tuples(
        st.none() | st.sampled_from([-1.5, -0.0, 0.5, 2.0, math.nan]),
        VALUES,
        st.sampled_from([None, "a", "b", "c d"]),
        st.sampled_from([None, True, False]),
    ),
    max_size=8,
)


@examples(200)
@given(CONDITIONS, TABLES)
def test_a_condition_means_what_it_means_in_plain_python(text: str, table: list[tuple[Any, ...]]) -> None:
    names = {"x": pa.float64(), "y": pa.int32(), "name": pa.string(), "ok": pa.bool_()}
    rows = [dict(zip(names, values, strict=True)) for values in table]
    batch = pa.RecordBatch.from_pylist(rows, schema=pa.schema(names))
    tree = parse_condition(text)
    assert parse_condition(str(tree)) == tree
    expected = [plainly(tree, row) is True for row in rows]
    assert bind_condition(text, batch.schema).is_true(batch).tolist() == expected
    assert bind_condition(str(tree), batch.schema).is_true(batch).tolist() == expected


@examples(150)
@given(st.text(alphabet="ab.`'\"\\()[],<>=!+-*/ 019eéornotisnullin\n", max_size=40))
def test_any_text_is_a_condition_or_one_line(text: str) -> None:
    schema = pa.schema({"a": pa.float64(), "b": pa.bool_()})
    found = ""
    try:
        bind_condition(text, schema)
    except SettingsError as error:
        found = str(error)
    assert not found or found.isprintable()
