"""A dataset goes on with what it was begun with, whether that is given again or not, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fink_dask.errors import LedgerError, SettingsError
from fink_dask.kafka.inspect import UNKNOWN_ID
from fink_dask.ledger.records import Identity
from fink_dask.planning.continuing import check_same_topic, go_on_with, like_the_others
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.units import parse_moment

BEGUN = Identity(
    topic="topic",
    topic_id="id",
    partitionby=("time",),
    survey="ztf",
    schema_sha256="00",
    schema_source="file",
    columns=("candid", "jd"),
    where='magpsf < 17 and finkclass == "Unknown"',
)
KEPT = {name: getattr(BEGUN, name) for name in ("partitionby", "survey", "columns", "where", "outformat")}
NEW = replace(BEGUN, partitionby=(), survey=None, columns=None, where=None)


def asked(**settings: Any) -> TransferSettings:
    return TransferSettings("topic", Path("alerts"), KafkaSettings("127.0.0.1:1"), **settings)


def kept(settings: TransferSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in KEPT}


@pytest.mark.parametrize("given", [*([name] for name in KEPT), [*KEPT], []], ids=",".join)
def test_what_is_not_given_is_what_it_was_begun_with(given: list[str]) -> None:
    assert kept(go_on_with(asked(**{name: KEPT[name] for name in given}), BEGUN)) == KEPT


def test_what_was_asked_for_and_what_was_used_instead_are_both_no_difference() -> None:
    instead = replace(BEGUN, partitionby_asked=("finkclass",))
    for name in ("finkclass", "time"):
        assert go_on_with(asked(partitionby=(name,)), instead).partitionby == ("time",)
    with pytest.raises(SettingsError, match="begun with --partitionby time, not tnsclass"):
        go_on_with(asked(partitionby=("tnsclass",)), instead)
    with pytest.raises(SettingsError, match="begun with --partitionby time, not finkclass"):
        go_on_with(asked(partitionby=("finkclass",)), BEGUN)
    # A further topic may have the class, or another one of these may not.
    assert like_the_others(asked(), [instead]).partitionby == ("finkclass",)
    assert like_the_others(asked(), [instead, BEGUN]) == asked()


def test_a_time_that_was_given_as_how_long_ago_is_the_same_when_it_is_given_again() -> None:
    timed = replace(BEGUN, since="2026-02-24T03:00:00.000Z", since_asked="6h")
    begun = go_on_with(asked(), timed).since
    assert begun is not None
    assert begun.utc == timed.since
    for text in ("6h", "2026-02-24T03:00", "2026-02-24T05:00+02:00"):
        assert go_on_with(asked(since=parse_moment("since", text)), timed).since == begun
    for text in ("7h", "2026-02-24"):
        with pytest.raises(SettingsError, match=f"begun with --since 6h, not {text}; leave --since out"):
            go_on_with(asked(since=parse_moment("since", text)), timed)
    assert like_the_others(asked(), [timed]).since == begun


def test_other_orders_and_spellings_are_no_difference() -> None:
    where = """ (magpsf<17) and finkclass  == 'Unknown' """
    assert go_on_with(asked(columns=("jd", "candid"), where=where), BEGUN).limit is None


@pytest.mark.parametrize(
    ("before", "given", "said", "remedies"),
    [
        (BEGUN, {"partitionby": ()}, "--partitionby time, not none", "leave --partitionby out"),
        (BEGUN, {"partitionby": ("time", "x")}, "--partitionby time, not time,x", "leave --partitionby out"),
        (BEGUN, {"survey": "lsst"}, "--survey ztf, not lsst", "leave --survey out"),
        (BEGUN, {"columns": ("jd",)}, "--columns candid,jd, not jd", "leave --columns out"),
        (BEGUN, {"where": "magpsf < 18"}, f"--where {BEGUN.where!r}, not 'magpsf < 18'", "leave --where out"),
        (BEGUN, {"outformat": "avro"}, "--outformat parquet, not avro", "leave --outformat out"),
        (NEW, {"partitionby": ("time",)}, "--partitionby none, not time", "leave --partitionby out"),
        (NEW, {"columns": ("jd",)}, "--columns all, not jd", "leave --columns out"),
        (NEW, {"where": "jd > 1"}, "--where none, not 'jd > 1'", "leave --where out"),
    ],
)
def test_a_difference_is_refused_with_both_remedies(
    before: Identity, given: dict[str, Any], said: str, remedies: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        go_on_with(asked(**given), before)
    assert f" {said};" in str(caught.value)
    assert remedies in str(caught.value)
    assert "another --outdir" in str(caught.value)


def test_what_was_begun_must_still_go_with_what_is_given() -> None:
    with pytest.raises(SettingsError, match=r"--limit .*--where"):
        go_on_with(asked(limit=5), BEGUN)
    with pytest.raises(SettingsError, match="whole records"):
        go_on_with(asked(columns=("candid", "jd")), replace(BEGUN, outformat="avro"))


def test_a_new_dataset_has_what_is_given_or_the_defaults() -> None:
    assert kept(go_on_with(asked(), None)) == {
        "partitionby": (),
        "outformat": "parquet",
        **dict.fromkeys(("survey", "columns", "where")),
    }
    assert go_on_with(asked(partitionby=("x",), outformat="avro"), None).partitionby == ("x",)


def test_a_further_topic_is_begun_as_the_others_were_if_these_are_alike() -> None:
    assert kept(like_the_others(asked(), [BEGUN, replace(BEGUN, topic="other", schema_sha256="01")])) == KEPT
    assert like_the_others(asked(partitionby=("x",)), [BEGUN]).partitionby == ("x",)
    assert like_the_others(asked(), [BEGUN, NEW]) == like_the_others(asked(), []) == asked()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"topic_id": "other"}, "deleted"), ({"schema_sha256": "01"}, "schema")],
)
def test_another_topic_of_the_same_name_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(LedgerError, match=words):
        check_same_topic(BEGUN, replace(BEGUN, **changes))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="--topic other, not topic"):
        go_on_with(asked(), replace(BEGUN, topic="other"))


@pytest.mark.parametrize("changes", [{}, {"topic_id": UNKNOWN_ID}, {"schema_source": "record key"}])
def test_an_id_that_no_broker_told_is_no_difference(changes: dict[str, str]) -> None:
    check_same_topic(BEGUN, replace(BEGUN, **changes))  # type: ignore[arg-type]
    check_same_topic(replace(BEGUN, **changes), BEGUN)  # type: ignore[arg-type]


def test_another_topic_is_told_how_both_become_one_dataset() -> None:
    with pytest.raises(SettingsError, match="fink-dask season nights"):
        go_on_with(replace(asked(), topic="another"), BEGUN)
