"""What the ledger records comes back as it was, or not at all."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange, total
from fink_dask.ledger.records import _FORMATS, DataFile, Marker, Plan, UnknownFormatError, seal, unseal
from tests.harness.ledgers import IDENTITY, make_plan

FILE = DataFile("key=1/part.parquet", "00000.parquet", 6, 100, "00")
MARKER = Marker(
    plan_id="01234567",
    range=OffsetRange(3, 10, 20),
    attempt="0123456789abcdef",
    rows=6,
    raw_bytes=1000,
    files=(FILE,),
    quarantined=1,
    quarantine=DataFile("quarantine/part.parquet", "quarantine-00000.parquet", 1, 10, "00"),
    filtered=1,
    lost=((10, 11),),
    holes=((19, 20),),
)


@pytest.mark.parametrize("marker", [MARKER, replace(MARKER, quarantined=0, quarantine=None, filtered=2)])
def test_a_marker_comes_back(tmp_path: Path, marker: Marker) -> None:
    path = tmp_path / "marker.json"
    path.write_bytes(seal("marker", marker.to_json()))
    assert Marker.from_json(unseal("marker", path)) == marker


SCATTERED = tuple((offset, offset + 1 + offset % 2) for offset in range(1_000_000, 1_001_000, 5))


@pytest.mark.parametrize("name", ["lost", "holes", "duplicates", "handed_over"])
def test_many_intervals_come_back_from_little_room_and_an_older_version_says_what_it_lacks(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset_range = OffsetRange(0, 1_000_000, 1_002_000)
    more = {"rows": 2000 - total(SCATTERED), "files": (replace(FILE, rows=2000 - total(SCATTERED)),)}
    marker = Marker("01234567", offset_range, "01", raw_bytes=0, **{name: SCATTERED}, **more)
    path = tmp_path / "marker.json"
    path.write_bytes(marker.sealed())
    assert Marker.from_json(unseal("marker", path)) == marker
    assert path.stat().st_size < 2 * len(SCATTERED) + 600
    assert marker.to_json()[name] == SCATTERED, "a compaction would not know it again with another zlib"
    monkeypatch.setitem(_FORMATS, "marker", 2)
    with pytest.raises(UnknownFormatError, match="format '3'"):
        unseal("marker", path)


def packed(content: object, behind: bytes = b"") -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b64encode(zlib.compress(raw) + behind).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        b64encode(b"x").decode(),
        packed([[0], [1]])[:-8],
        packed([[0], [1]], b"behind"),
        packed(b" " * 2**25),
        packed(b"[" * 100_000),
        packed(5),
        packed([[0]]),
        packed([[0, 0], [1]]),
        packed([[-1], [1]]),
        packed([[0], [0]]),
        packed([[0], [True]]),
        packed([[0], [1.0]]),
        packed([["0"], ["1"]]),
        packed([[0], [11]]),
        packed([[10**30], [1]]),
    ],
    ids=lambda text: text[:20],
)
def test_packed_intervals_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        Marker.from_json(MARKER.to_json() | {"lost": text})
    assert Marker.from_json(MARKER.to_json() | {"lost": packed([[0], [1]])}) == MARKER


@pytest.mark.parametrize("survey", [None, "ztf"])
def test_a_plan_comes_back_with_the_same_id(tmp_path: Path, survey: str | None) -> None:
    plan = replace(
        make_plan([OffsetRange(0, 5, 7), OffsetRange(1, 0, 2**62)]), identity=replace(IDENTITY, survey=survey)
    )
    path = tmp_path / "plan.json"
    path.write_bytes(seal("plan", plan.to_json()))
    again = Plan.from_json(unseal("plan", path))
    assert again == plan
    assert again.plan_id == plan.plan_id


def test_a_plan_has_its_condition_and_one_without_is_what_it_was() -> None:
    plan = make_plan([OffsetRange(0, 5, 7)])
    # What ledgers of before have: no key, and the same id.
    assert "where" not in plan.to_json()["identity"]
    assert replace(plan, id_chars=8).plan_id == "d8f6eb67"
    assert len(plan.plan_id) == 16
    asked = replace(plan, identity=replace(plan.identity, where='magpsf < 18 and finkclass == "SN candidate"'))
    assert Plan.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert asked.plan_id != plan.plan_id


def test_a_plan_has_its_times_and_one_without_has_no_key_of_them() -> None:
    plan = make_plan([OffsetRange(0, 5, 7)])
    assert not {"begins", "until", "since", "since_asked"} & {*plan.to_json(), *plan.to_json()["identity"]}
    identity = replace(plan.identity, since="2026-02-24T03:00:00.000Z", since_asked="6h")
    timed = replace(plan, identity=identity, begins=((0, 5), (1, 0)), until="2026-02-25T00:00:00.000Z")
    assert Plan.from_json(json.loads(json.dumps(timed.to_json()))) == timed
    assert timed.plan_id != plan.plan_id
    for wrong in (
        {"until": "tomorrow"},
        {"until": "2026-02-25T00:00"},
        {"until": 5},
        {"begins": [[0, -1]]},
        {"begins": [[0]]},
        {"identity": timed.to_json()["identity"] | {"since": "6h"}},
    ):
        with pytest.raises(LedgerError, match="plan"):
            Plan.from_json(timed.to_json() | wrong)


def test_a_plan_has_what_was_asked_for_where_that_is_not_what_was_used_and_no_key_of_it_otherwise() -> None:
    plan = make_plan([OffsetRange(0, 5, 7)])
    assert "partitionby_asked" not in plan.to_json()["identity"]
    instead = replace(plan, identity=replace(plan.identity, partitionby_asked=("finkclass",)))
    assert Plan.from_json(json.loads(json.dumps(instead.to_json()))) == instead


CONTRADICTIONS: list[dict[str, Any]] = [
    {"rows": 7},
    {"rows": 5, "filtered": 2},
    {"filtered": 0},
    {"filtered": -1, "holes": ((17, 20),)},
    {"lost": ((9, 10),)},
    {"lost": ((20, 21),)},
    {"lost": ((19, 20),)},
    {"lost": ((12, 11), (13, 15))},
    {"holes": ((10, 11),)},
    {"files": ()},
    {"files": (FILE, FILE)},
    {"quarantine": None},
    {"quarantined": 0, "filtered": 2},
    {"attempt": "../x"},
    {"attempt": ""},
    {"plan_id": "../x"},
    {"plan_id": ""},
    {"raw_bytes": -1},
]


@pytest.mark.parametrize("changes", CONTRADICTIONS, ids=str)
def test_a_marker_accounts_for_every_offset_of_its_range_once(changes: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match=MARKER.range.name):
        replace(MARKER, **changes)


BROKEN_PLANS: list[dict[str, Any]] = [
    {"ranges": [[0, 0, float("inf")]]},
    {"ranges": [[0, 0]]},
    {"ranges": [[0, 5, 5]]},
    {"ranges": None},
    {"identity": {}},
    {"identity": None},
    {"generation": "x"},
    {"estimated_bytes": None},
]


@pytest.mark.parametrize("changes", BROKEN_PLANS, ids=str)
def test_a_plan_that_cannot_be_read_is_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match="plan"):
        Plan.from_json(make_plan([OffsetRange(0, 0, 1)]).to_json() | changes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


@given(content=st.dictionaries(st.text(), json_values))
def test_a_document_comes_back(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    path.write_bytes(seal("marker", content))
    assert unseal("marker", path) == content


@pytest.mark.parametrize("is_in_order", [True, False], ids=["as it is hashed", "as ledgers once had it"])
def test_a_marker_is_read_in_any_order_of_its_keys_and_refused_once_a_byte_differs(
    tmp_path: Path, is_in_order: bool
) -> None:
    path = tmp_path / "marker.json"
    sealed = seal("marker", MARKER.to_json())
    if not is_in_order:
        document = json.loads(sealed)
        document["marker"] = dict(reversed(document["marker"].items()))
        sealed = json.dumps(document, separators=(",", ":")).encode()
    path.write_bytes(sealed)
    assert Marker.from_json(unseal("marker", path)) == MARKER
    for place in range(sealed.index(b'"sha256"'), len(sealed)):
        path.write_bytes(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        with pytest.raises(LedgerError):
            unseal("marker", path)
    for end in range(len(sealed)):
        path.write_bytes(sealed[:end])
        with pytest.raises(LedgerError):
            unseal("marker", path)


@given(content=json_values)
def test_any_other_json_is_no_document(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "other.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LedgerError):
        unseal("marker", path)


@given(content=json_values)
def test_any_json_is_a_marker_or_refused(content: Any) -> None:
    for name in MARKER.to_json():
        with suppress(LedgerError):
            Marker.from_json(MARKER.to_json() | {name: content})


def test_a_document_of_a_later_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(seal("plan", {}).replace(b'"format":2', b'"format":7'))
    with pytest.raises(UnknownFormatError, match="'7'"):
        unseal("plan", path)


SHA = "0" * 64
WRONG_PLANS: list[tuple[str, object]] = [
    ("schema_sha256", None),
    ("schema_sha256", 5),
    ("schema_sha256", ["a"]),
    ("schema_sha256", "/../../../secret"),
    ("schema_sha256", SHA[:-1] + "\0"),
    ("schema_sha256", "\ud800"),
    ("more_schemas", ["a\0"]),
    ("more_schemas", [None]),
    ("more_schemas", 5),
    ("topic", ["a"]),
    ("topic", "a\0"),
    ("topic_id", None),
    ("partitionby", None),
    ("partitionby", "time"),
    ("partitionby", [5]),
    ("survey", "x"),
    ("survey", ["ztf"]),
    ("columns", [5]),
    ("where", 5),
    ("outformat", ["parquet"]),
    ("framing", "confluent:../.."),
    ("framing", 5),
    ("unknown", 5),
]
WRONG_MARKERS: list[tuple[str, object]] = [
    ("raw_bytes", float("nan")),
    ("raw_bytes", 10**400),
    ("raw_bytes", "5"),
    ("raw_bytes", True),
    ("rows", 6.0),
    ("quarantined", 1.0),
    ("newest_ms", float("inf")),
    ("newest_ms", 10**400),
    ("lost_at", 5),
    ("attempt", 5),
    ("plan_id", None),
    ("superseded", "ab"),
    ("superseded", [5]),
    ("lost", [[float("nan"), 11]]),
    ("files", [{**asdict(FILE), "path": "a\ud800.parquet"}]),
    ("files", [{**asdict(FILE), "path": 5}]),
    ("files", [{**asdict(FILE), "size": float("nan")}]),
    ("files", [{**asdict(FILE), "sha256": None}]),
    ("files", [{**asdict(FILE), "file_rows": "6"}]),
    ("files", [5]),
    ("files", 5),
]


@pytest.mark.parametrize(("name", "value"), WRONG_PLANS, ids=str)
def test_a_plan_that_is_sealed_rightly_and_holds_something_else_is_damaged(name: str, value: object) -> None:
    content = json.loads(json.dumps(make_plan([OffsetRange(0, 5, 7)]).to_json()))
    with pytest.raises(LedgerError, match="plan"):
        Plan.from_json({**content, "identity": {**content["identity"], name: value}})


@pytest.mark.parametrize(("name", "value"), WRONG_MARKERS, ids=lambda value: str(value)[:40])
def test_a_marker_that_is_sealed_rightly_and_holds_something_else_is_damaged(name: str, value: object) -> None:
    content = json.loads(json.dumps(MARKER.to_json()))
    with pytest.raises(LedgerError):
        Marker.from_json({**content, name: value})
