"""The list of schemas that a dataset has taken in: in order, whoever is killed, and whoever comes at the same time."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fink_dask.avro.evolution import Versions
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.partitioning import Partitioning, PartitionSource
from fink_dask.dataset.schema_versions import (
    dataset_schema,
    known_versions,
    partitioning_of,
    reconcile_versions,
    register,
)
from fink_dask.errors import LedgerError, SchemaError, SettingsError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity, Plan
from tests.harness.crash import barrier, run_until, start
from tests.harness.ledgers import make_ledger
from tests.harness.powercut import Recorder, after_power_cut
from tests.harness.versions import OTHER, V1, V2, V3, nullable, record, with_more

NOWHERE = Partitioning(())
#: One of this and V2 can be taken in.
CLASH = {**V1, "fields": [*V1["fields"], {"name": "finkclass", "type": "int"}]}


def parsed(raw: Any) -> AvroSchema:
    return parse_schema(json.dumps(raw))


FIRST = parsed(V1)
IDENTITY = Identity("topic", "id", (), None, FIRST.fingerprint, "record key")
PLAN = Plan(1, IDENTITY, (OffsetRange(0, 0, 5),), 100)


def begun(outdir: Path) -> Ledger:
    ledger = make_ledger(outdir)
    ledger.freeze(PLAN, FIRST)
    return ledger


def take(outdir: Path, raws: list[Any], gate: Any = None) -> None:
    if gate is not None:
        gate.wait()
    for raw in raws:
        try:
            register(Ledger(outdir), IDENTITY, NOWHERE, parsed(raw))
        except SchemaError:
            continue


def texts(ledger: Ledger, identity: Identity = IDENTITY) -> list[str]:
    return [schema.text for schema in known_versions(ledger, identity).schemas]


def test_a_schema_is_taken_in_once_and_in_order(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "alerts")
    take(ledger.outdir, [V2, V1, V3, V2, OTHER, V3])
    assert texts(ledger) == [parsed(raw).text for raw in (V1, V2, V3)]
    assert dataset_schema(ledger).names[-4:] == ["origin", "score", "kafka_partition", "kafka_offset"]


def test_a_kill_after_any_operation_leaves_a_list_that_can_be_gone_on_with(tmp_path: Path) -> None:
    for at in count(1):
        ledger = begun(tmp_path / str(at))
        died = run_until(at, take, ledger.outdir, [V2, V3])
        assert texts(ledger) == [parsed(raw).text for raw in (V1, V2, V3)][: len(texts(ledger))]
        take(ledger.outdir, [V3, V2])
        assert set(texts(ledger)) == {parsed(raw).text for raw in (V1, V2, V3)}
        if not died:
            break
    assert at > 8


def test_of_schemas_that_come_at_once_all_that_fit_are_there_and_of_two_that_clash_one(tmp_path: Path) -> None:
    for attempt in range(4):
        ledger = begun(tmp_path / str(attempt))
        gate = barrier(4)
        sets = [[with_more(V1, 1), V2], [V3, CLASH], [CLASH, with_more(V1, 2)], [V2, V3]]
        running = [start(take, ledger.outdir, raws, gate) for raws in sets]
        for process in running:
            process.join(60)
            assert process.exitcode == 0
        found = texts(ledger)
        assert len(found) == len(set(found)) == 5
        assert len({parsed(V2).text, parsed(CLASH).text} & set(found)) == 1
        assert not list(ledger.path.glob("**/.*"))


def test_a_schema_that_another_range_takes_in_meanwhile_is_not_clashed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, real = begun(tmp_path / "alerts"), Ledger.schema

    def another_is_faster(ledger: Ledger, identity: Identity) -> AvroSchema:
        monkeypatch.undo()
        take(ledger.outdir, [CLASH])
        return real(ledger, identity)

    monkeypatch.setattr(Ledger, "schema", another_is_faster)
    with pytest.raises(SchemaError):
        register(ledger, IDENTITY, NOWHERE, parsed(V2))
    assert texts(ledger) == [parsed(raw).text for raw in (V1, CLASH)]


def test_a_plan_that_names_its_schemas_needs_no_list_and_old_plans_keep_their_ids(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "alerts")
    take(ledger.outdir, [V2])
    named = reconcile_versions(ledger, IDENTITY, NOWHERE, Versions((FIRST, parsed(V3))), is_first=False)
    assert named.more_schemas == (parsed(V2).fingerprint, parsed(V3).fingerprint)
    plan = Plan(2, named, (OffsetRange(0, 5, 9),), 100)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "more_schemas" not in PLAN.to_json()["identity"]
    assert replace(PLAN, id_chars=8).plan_id == "74eb51f6"
    for path in (ledger.path / "versions").iterdir():
        path.unlink()
    assert len(texts(ledger, named)) == 3


def test_what_a_job_took_in_that_never_planned_counts_for_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts")
    reconcile_versions(ledger, IDENTITY, NOWHERE, Versions((FIRST, parsed(V2))), is_first=True)
    # The topic now begins with what clashes with it.
    other = replace(IDENTITY, schema_sha256=parsed(OTHER).fingerprint)
    assert reconcile_versions(ledger, other, NOWHERE, Versions((parsed(OTHER),)), is_first=True).more_schemas == ()


def test_damage_is_said_and_never_read_over(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "alerts")
    take(ledger.outdir, [V2])
    path = ledger.path / "versions" / "00000002.json"
    good = path.read_text()
    path.write_text(good.replace('"schema_sha256":"', '"schema_sha256":"0'))
    with pytest.raises(LedgerError, match=rf"{path.name}\b.*checksum"):
        known_versions(ledger, IDENTITY)
    path.write_text(good)
    stored = ledger.schema_path(replace(IDENTITY, schema_sha256=parsed(V2).fingerprint))
    stored.write_text("{}")
    with pytest.raises(LedgerError, match="fink-dask repair"):
        known_versions(ledger, IDENTITY)
    # A file that is in the place of a schema's makes that one impossible, and nothing else.
    ledger.schema_path(replace(IDENTITY, schema_sha256=parsed(V3).fingerprint)).write_text("{}")
    stored.write_text(parsed(V2).text)
    with pytest.raises(SchemaError, match=r"schema-.*\.avsc"):
        register(ledger, IDENTITY, NOWHERE, parsed(V3))
    assert len(texts(ledger)) == 2


def test_directories_mean_the_same_whatever_comes_later() -> None:
    light = record("light", jd="double", mag="float")
    full = record("full", jd="double", mag="float", candidate=nullable(record("c", jd="double", fid="int")))
    by_time = replace(IDENTITY, partitionby=("time",), survey="ztf")
    for versions in (Versions((parsed(light),)), Versions((parsed(light), parsed(full)))):
        assert [source.path for source in partitioning_of(by_time, versions).sources] == ["jd"]
    by_later = replace(IDENTITY, partitionby=("candidate.fid",))
    with pytest.raises(SettingsError):
        partitioning_of(by_later, Versions((parsed(light),)))
    assert partitioning_of(by_later, Versions((parsed(light), parsed(full)))).columns == ("candidate_fid",)


def test_a_field_that_a_partition_column_would_hide_does_not_fit(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "alerts")
    partitioning = Partitioning((PartitionSource("candidate.fid", ("candidate_fid",)),))
    hidden = {**V1, "fields": [*V1["fields"], {"name": "candidate_fid", "type": "int"}]}
    with pytest.raises(SchemaError, match="candidate_fid"):
        register(ledger, IDENTITY, partitioning, parsed(hidden))


def _settle_and_freeze(ledger: Ledger) -> None:
    """Plan the next generation, as a job does that finds a schema on the list."""
    named = reconcile_versions(ledger, IDENTITY, NOWHERE, Versions((FIRST, parsed(V2))), is_first=False)
    ledger.freeze(Plan(2, named, (OffsetRange(0, 5, 9),), 100), FIRST)


def _violations(ledger: Ledger, disk: dict[Path, bytes | None], finished: bool) -> set[str]:
    """Check what is left on the disk."""
    found = set()
    named = {FIRST.fingerprint} if any(path.parent == ledger.plans_path for path in disk) else set()
    for path, content in disk.items():
        if path.suffix == ".json" and path.parent in {ledger.plans_path, ledger.path / "versions"}:
            if not content:
                found.add(f"{path.parent.name}: torn")
                continue
            document = json.loads(content)
            if "plan" in document:
                named.update(document["plan"]["identity"].get("more_schemas", ()))
            else:
                named.add(document["version"]["schema_sha256"])
    for name in named:
        stored = disk.get(ledger.schema_path(replace(IDENTITY, schema_sha256=name)))
        if not stored or parse_schema(stored).fingerprint != name:
            found.add("a schema that is named is not there")
    if finished and disk.get(ledger.path / "versions" / "00000002.json") is None:
        found.add("the list has lost a schema that files may follow")
    return found


@pytest.mark.parametrize("other_had_synced", [True, False])
def test_no_power_cut_loses_a_schema_that_a_plan_or_a_file_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_had_synced: bool
) -> None:
    recorder = Recorder(tmp_path)
    recorder.attach(monkeypatch)
    ledger = begun(tmp_path / "alerts")
    register(ledger, IDENTITY, NOWHERE, parsed(V2))
    taken = len(recorder.events)
    _settle_and_freeze(ledger)
    recorder.note()
    monkeypatch.undo()
    # The other one has linked the number, but not brought it to the disk yet.
    listed = f"{(ledger.path / 'versions').relative_to(tmp_path)}"
    ignored = [
        index
        for index, event in enumerate(recorder.events[:taken])
        if not other_had_synced and event.synced is not None and event.name == listed
    ]
    assert bool(ignored) != other_had_synced
    for eager in (False, True):
        disks = after_power_cut(tmp_path, recorder.events, eager, ignored)
        for index, disk in enumerate(disks):
            assert _violations(ledger, disk, finished=index == len(disks) - 1) == set()
