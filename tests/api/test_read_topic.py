"""A topic is read as a lazy frame: every alert once, only the columns that are asked for, and nothing is hidden."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from dask.dataframe.dask_expr.io import FromMap

import fink_dask
from fink_dask.api import topic as topic_module
from fink_dask.api.topic import TopicFrame, TopicSource
from fink_dask.avro.decoder import ColumnarDecoder, Decoding
from fink_dask.cluster.client import open_client
from fink_dask.errors import (
    BrokerError,
    CrowdedLineError,
    FinkDaskError,
    MissingSchemaError,
    SchemaError,
    SettingsError,
)
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.harness.oracle import Oracle, assert_values_equal, fill_topic, make_topic, note
from tests.harness.producer import produce
from tests.harness.topics import create_topic, delete_records_before, own_topic
from tests.harness.versions import Livestream, record

COUNT = 900


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=3)


@pytest.fixture
def frame(kafka: Any, topic: str, oracle: Oracle) -> TopicFrame:
    return fink_dask.read_topic(topic, kafka.bootstrap_servers, partition_bytes="100kB")


@pytest.fixture
def other(kafka: Any) -> Iterator[str]:
    with own_topic(kafka.bootstrap_servers) as name:
        yield name


def _source(frame: TopicFrame) -> TopicSource:
    (reading,) = frame.expr.find_operations(FromMap)
    source: TopicSource = reading.operand("kwargs")["source"]
    return source


def test_every_alert_is_there_once_with_its_values_and_types(frame: TopicFrame, oracle: Oracle) -> None:
    assert frame.npartitions > 6
    found = frame.compute()
    assert sorted(zip(found.kafka_partition, found.kafka_offset, strict=True)) == sorted(oracle.values)
    assert_values_equal(pa.Table.from_pandas(found, preserve_index=False), oracle, every=7)
    assert list(frame.dtypes) == list(found.dtypes)
    assert {type(kind) for kind in found.dtypes} == {pd.ArrowDtype}


def test_nothing_but_what_is_selected_is_decoded(
    frame: TopicFrame, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[str, ...]] = set()
    decode = ColumnarDecoder.decode_joined

    def noted(self: ColumnarDecoder, *arguments: Any) -> Any:
        seen.add(tuple(self.arrow.names))
        return decode(self, *arguments)

    monkeypatch.setattr(ColumnarDecoder, "decode_joined", noted)
    selected = frame[frame["magpsf"] < 18][["candid", "kafka_offset"]].compute(scheduler="threads")
    assert seen == {("magpsf", "candid")}
    alerts = [(place, oracle.alert(place)) for place in oracle.values]
    expected = sorted((alert["candid"], offset) for (_, offset), alert in alerts if alert["magpsf"] < 18)
    assert sorted(zip(selected.candid, selected.kafka_offset, strict=True)) == expected
    assert len(frame[["kafka_partition"]].compute(scheduler="threads")) == COUNT


def test_of_alerts_that_are_left_out_nothing_is_taken_but_what_the_condition_looks_at(
    kafka: Any, topic: str, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    take = Decoding.take

    def noted(self: Decoding, *arguments: Any) -> Any:
        found = take(self, *arguments)
        rows.append(found.num_rows)
        return found

    monkeypatch.setattr(Decoding, "take", noted)
    wanted = {place for place in oracle.values if oracle.alert(place)["magpsf"] < 16.5}
    assert 0 < len(wanted) < COUNT / 2
    frame = fink_dask.read_topic(topic, kafka.bootstrap_servers, columns=["candid", "objectId"], where="magpsf < 16.5")
    found = frame.compute(scheduler="threads")
    assert sum(rows) == len(wanted)
    assert set(zip(found.kafka_partition, found.kafka_offset, strict=True)) == wanted
    assert list(found.columns) == ["candid", "objectId", "kafka_partition", "kafka_offset"]
    assert len(frame[["candid"]].compute(scheduler="threads")) == len(wanted)
    tables = [one.compute() for one in frame.to_delayed()]
    assert sum(table.num_rows for table in tables) == len(wanted)


def test_classes_are_counted_on_a_cluster(frame: TopicFrame, oracle: Oracle, dask_scheduler: str) -> None:
    expected: dict[str | None, int] = {}
    for place in oracle.values:
        name = oracle.alert(place)["finkclass"]
        expected[name] = expected.get(name, 0) + 1
    expected.pop(None, None)
    with open_client(dask_scheduler):
        assert frame.groupby("finkclass").size().compute().to_dict() == expected


def test_partitions_come_as_arrow_tables(frame: TopicFrame, oracle: Oracle) -> None:
    tables = [one.compute() for one in frame.to_delayed()]
    assert len(tables) == frame.npartitions
    assert sum(table.num_rows for table in tables) == COUNT
    assert_values_equal(tables[0], oracle, every=5)


def test_columns_and_fields_of_structs_are_chosen(kafka: Any, other: str) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, other, AlertKind.LSST_FULL, 30, partitions=2)
    columns = ["diaSource.midpointMjdTai", "diaSource.diaSourceId", "diaObject"]
    frame = fink_dask.read_topic(other, kafka.bootstrap_servers, columns=columns)
    assert set(frame.columns) == {"diaSource", "diaObject", "kafka_partition", "kafka_offset"}
    (table, *_) = [one.compute() for one in frame[["diaSource"]].optimize().partitions[0:1].to_delayed()]
    row = frame.compute().iloc[0]
    alert = oracle.alert((row.kafka_partition, row.kafka_offset))
    assert row.diaSource == {name: alert["diaSource"][name] for name in ("diaSourceId", "midpointMjdTai")}
    assert list(table.columns) == ["diaSource"]
    assert len(pickle.dumps(_source(frame))) < 20_000, "it travels with every partition"


def test_a_column_with_dots_in_its_own_name_is_one(kafka: Any, other: str) -> None:
    create_topic(kafka.bootstrap_servers, other, 1)
    Livestream(kafka.bootstrap_servers, other).add([record("alert", objectId="string", **{"x.y": "double"})] * 3)
    frame = fink_dask.read_topic(other, kafka.bootstrap_servers, columns=["objectId", "x.y"])
    assert frame[["x.y"]].compute()["x.y"].notna().sum() == 3


def test_an_empty_topic_is_a_frame_without_rows(kafka: Any, other: str) -> None:
    make_topic(kafka.bootstrap_servers, other, AlertKind.ZTF_LIGHT, 2)
    frame = fink_dask.read_topic(other, kafka.bootstrap_servers)
    assert (len(frame), "candid" in frame.columns) == (0, True)
    assert len(fink_dask.read_topic(other, kafka.bootstrap_servers, where="magpsf < 18")) == 0
    with pytest.raises(SettingsError, match=r"^where: .*\bmag\b"):
        fink_dask.read_topic(other, kafka.bootstrap_servers, where="mag < 18")


def test_a_record_that_can_t_be_decoded_is_not_hidden(kafka: Any, other: str) -> None:
    address = kafka.bootstrap_servers
    oracle = fill_topic(address, other, AlertKind.ZTF_LIGHT, 50, partitions=1)
    (poison,) = produce(address, other, [b"poison"])
    frame = fink_dask.read_topic(other, address)
    with pytest.raises(SchemaError, match=rf"\[0\] at offset {poison.offset}.*skip"):
        frame.compute()
    found = fink_dask.read_topic(other, address, on_bad_record="skip").compute()
    assert sorted(zip(found.kafka_partition, found.kafka_offset, strict=True)) == sorted(oracle.values)


def test_alerts_that_kafka_has_removed_meanwhile_are_missed(kafka: Any, other: str) -> None:
    fill_topic(kafka.bootstrap_servers, other, AlertKind.ZTF_LIGHT, 60, partitions=1)
    frame = fink_dask.read_topic(other, kafka.bootstrap_servers)
    delete_records_before(kafka.bootstrap_servers, other, 0, 20)
    with pytest.raises(BrokerError, match="0 to 19"):
        frame.compute()
    assert len(fink_dask.read_topic(other, kafka.bootstrap_servers)) == 40


def test_a_schema_of_the_user_s_is_taken(kafka: Any, other: str, tmp_path: Any) -> None:
    create_topic(kafka.bootstrap_servers, other, 1)
    values = list(encoded_alerts(AlertKind.ZTF_LIGHT, 20))
    oracle = Oracle(avro_schema(AlertKind.ZTF_LIGHT), {})
    note(oracle, produce(kafka.bootstrap_servers, other, values), values)
    with pytest.raises(MissingSchemaError, match="schema=FILE"):
        fink_dask.read_topic(other, kafka.bootstrap_servers)
    (tmp_path / "ztf.avsc").write_text(json.dumps(oracle.schema))
    assert len(fink_dask.read_topic(other, kafka.bootstrap_servers, schema=tmp_path / "ztf.avsc")) == len(values)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"topic": "ftransfer_ztf_2026-11-01_0"}, BrokerError, "^ftransfer_ztf_2026-11-01_0: "),
        ({"topic": "a/b"}, SettingsError, "'a/b'"),
        ({"columns": ["magpfs"]}, SettingsError, "magpfs"),
        ({"columns": "candid,,jd"}, SettingsError, "^columns: .*candid,,jd"),
        ({"survey": "ptf"}, SettingsError, "ztf, lsst"),
        (
            {"bootstrap_server": "localhost"},
            SettingsError,
            r"'bootstrap_server'.*help\(fink_dask.read_topic",
        ),
        ({"security_protocol": "SASL_SSL", "password_file": "not/there"}, SettingsError, "not/there"),
        ({"where": "magpfs < 18"}, SettingsError, r"^where: .*\bmagpsf\b"),
        ({"where": "magpsf <"}, SettingsError, "^where: .*end"),
        ({"partition_bytes": "much"}, SettingsError, "^partition_bytes .*much"),
        ({"partition_bytes": 0}, SettingsError, "^partition_bytes .*0"),
        ({"on_bad_record": "ignore"}, SettingsError, "fail, skip"),
        ({"security_protocol": "SASL_SSL", "username": "u"}, SettingsError, "password"),
    ],
)
def test_what_can_t_be_read_is_refused_at_once(
    kafka: Any, topic: str, oracle: Oracle, changes: dict[str, Any], kind: type[FinkDaskError], words: str
) -> None:
    arguments = {"topic": topic, "bootstrap_servers": kafka.bootstrap_servers} | changes
    with pytest.raises(kind, match=words):
        fink_dask.read_topic(**arguments)


def test_an_import_loads_nothing_and_a_name_that_is_not_there_is_said() -> None:
    assert "read_topic" in dir(fink_dask)
    with pytest.raises(AttributeError, match="read_topics"):
        _ = fink_dask.read_topics


def test_a_range_to_which_nothing_came_in_time_is_read_again_by_fewer_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    table, tries = pa.table({"candid": [1, 2]}), iter([True, True, False])

    def read(*_: object) -> list[pa.Table]:
        if next(tries):
            raise CrowdedLineError("crowded")
        return [table]

    monkeypatch.setattr(topic_module, "_empty", lambda *_: table.slice(0, 0))
    monkeypatch.setattr(topic_module, "_read_range", read)
    source: Any = SimpleNamespace(kafka=KafkaSettings("127.0.0.1:1"))
    assert topic_module.read_table(OffsetRange(0, 0, 2), source).equals(table)
