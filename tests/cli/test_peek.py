"""A few alerts of a topic, as they are there: for people, for programs, and as pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from PIL import Image
from rich.console import Console

from fink_dask.kafka.connection import open_connection
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.show import peek as peek_module
from fink_dask.show.alert import alert_tree, as_json
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts, encoder, made_up_alerts
from tests.harness.cli import PROGRAM, environment, remarks, run_cli
from tests.harness.oracle import Oracle, fill_topic, make_topic, note
from tests.harness.producer import produce, produce_transaction, publish_schema
from tests.harness.topics import client_config, create_topic

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold]\u202e\n\r" + "y" * 10_000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: What is said while it waits, until it is wiped out.
_WAITING = re.compile(r"^\x1b\[\?25l.*\x1b\[\?25h\r\x1b\[1A\x1b\[2K", re.DOTALL)


def peek(kafka: Any, topic: str, *more: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_cli("peek", topic, "--bootstrap-servers", kafka.bootstrap_servers, *more, cwd=cwd)


def on_a_terminal(*arguments: str, **env: str) -> str:
    """Run a command on a terminal of its own, and return what it wrote there."""
    ours, theirs = pty.openpty()
    more = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "120", **env}
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(more)
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(timeout=300) == 0, written
    return written.decode()


def expected(value: Any) -> Any:
    """Say a value of fastavro as JSON has it."""
    if isinstance(value, dict):
        return {name: expected(item) for name, item in value.items()}
    if isinstance(value, list):
        return [expected(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def same(found: Any, wanted: Any) -> bool:
    """Compare; what had 32 bits has the same 32 bits."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, float):
        return bool(found == wanted or np.float32(found) == np.float32(wanted))
    return bool(type(found) is type(wanted) and found == wanted)


def test_a_topic_without_a_schema_of_its_own_is_shown_by_a_file_and_a_name_without_a_survey_by_an_option(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    topic, kind = topic_name.replace("ztf", "other"), AlertKind.ZTF_LIGHT
    create_topic(kafka.bootstrap_servers, topic, 1)
    produce(kafka.bootstrap_servers, topic, list(encoded_alerts(kind, 3)), partitions=1)
    assert peek(kafka, topic, "--survey", "ztf").returncode == 1
    (tmp_path / "alert.avsc").write_text(json.dumps(avro_schema(kind)))
    result = peek(kafka, topic, "--survey", "ztf", "--schema", "alert.avsc", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = [json.loads(line)["candid"] for line in result.stdout.splitlines()]
    assert found == [alert["candid"] for alert in made_up_alerts(kind, 3)]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind is AlertKind.LSST_FULL else pytest.mark.commands) for kind in AlertKind],
    ids=lambda kind: kind.value,
)
def test_json_has_every_value_that_was_published(kind: AlertKind, kafka: Any, topic_name: str) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, kind, 12, partitions=2)
    result = peek(kafka, topic_name, "-n", "20", "--json")
    assert (result.returncode, remarks(result.stderr)) == (0, [])
    rows = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    places = [(row.pop("kafka_partition"), row.pop("kafka_offset")) for row in rows]
    assert places == sorted(oracle.values)
    for place, row in zip(places, rows, strict=True):
        assert same(row, expected(oracle.alert(place))), place


def test_the_alerts_that_were_asked_for_are_shown(kafka: Any, topic_name: str) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 40, partitions=3)
    (last,) = produce(kafka.bootstrap_servers, topic_name, [next(iter(oracle.values.values()))])

    def places(*options: str) -> list[tuple[int, int]]:
        result = peek(kafka, topic_name, "--json", *options)
        assert result.returncode == 0, result.stderr
        rows = map(json.loads, result.stdout.splitlines())
        return [(row["kafka_partition"], row["kafka_offset"]) for row in rows]

    assert places() == [(0, 0), (0, 1), (0, 2)]
    assert places("-n", "1", "--partition", "2") == [(2, 0)]
    assert places("-n", "2", "--partition", "1", "--offset", "4") == [(1, 4), (1, 5)]
    assert places("-n", "1", "--newest") == [(last.partition, last.offset)]
    assert places("-n", "100", "--newest") != []
    assert sorted(places("-n", "100")) == sorted([*oracle.values, (last.partition, last.offset)])
    of_two = [offset for partition, offset in [*oracle.values, (last.partition, last.offset)] if partition == 2]
    assert sorted(places("-n", "3", "--partition", "2", "--newest")) == [(2, n) for n in sorted(of_two)[-3:]]


def test_what_is_held_of_many_partitions_is_no_more_than_was_asked_for(
    kafka: Any, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=10)
    settings = TransferSettings(topic_name, Path("peek"), KafkaSettings(kafka.bootstrap_servers))
    read, held, most = peek_module._read, [], 0

    def noted(*arguments: Any) -> Iterator[peek_module.Peeked]:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in held))
        for record in read(*arguments):
            held.append(weakref.ref(record))
            yield record

    monkeypatch.setattr(peek_module, "_read", noted)
    with open_connection(settings.kafka) as connection:
        found = peek_module.peek(settings, peek_module.Peek(3, is_newest=True), connection)
    assert len(found) == 3
    assert len(held) == 10 * 3, "far away, each takes its time"
    assert most == 3
    alert = max(map(len, oracle.values.values()))
    assert all(record.alert is not None and record.alert.get_total_buffer_size() < 10 * alert for record in found)


def test_the_newest_of_a_topic_that_is_written_in_transactions_is_found(kafka: Any, topic_name: str) -> None:
    schema = make_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 1)
    values = list(map(encoder(schema), made_up_alerts(AlertKind.ZTF_LIGHT, 4)))
    for value in values:
        produce_transaction(kafka.bootstrap_servers, topic_name, [value])
    result = peek(kafka, topic_name, "--newest", "-n", "2", "--json")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.commands
def test_a_record_of_any_time_is_shown(kafka: Any, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1, {"message.timestamp.after.max.ms": str(2**63 - 1)})
    publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(avro_schema(AlertKind.ZTF_LIGHT)))
    (value,) = encoded_alerts(AlertKind.ZTF_LIGHT, 1)
    writer = Producer(client_config(kafka.bootstrap_servers))
    for time_ms in (1_700_000_000_000, 1_700_000_000_000_000, 2**63 - 1):  # the second as if in microseconds
        writer.produce(topic_name, value, partition=0, timestamp=time_ms)
    assert writer.flush(30) == 0
    for options in ((), ("--newest",)):
        result = peek(kafka, topic_name, *options)
        assert (result.returncode, remarks(result.stderr)) == (0, [])
        titles = [line for line in result.stdout.splitlines() if line.startswith("partition")]
        assert len(titles) == 3
        assert titles[0] == "partition 0, offset 0, 2023-11-14 22:13:20 UTC"
        assert titles[1].startswith("partition 0, offset 1, 55840-")


@pytest.mark.commands
def test_what_can_not_be_asked_for_is_one_line_that_says_what_there_is(kafka: Any, topic_name: str) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 2)
    empty = peek(kafka, topic_name)
    assert (empty.returncode, len(remarks(empty.stderr))) == (1, 1)
    assert f"{topic_name}: " in empty.stderr
    value = next(iter(map(encoder(avro_schema(AlertKind.ZTF_LIGHT)), made_up_alerts(AlertKind.ZTF_LIGHT, 1))))
    produce(kafka.bootstrap_servers, topic_name, [value] * 8)
    for options, status, words in (
        (("--partition", "7"), 1, r"partition 7\b.*\b2\b"),
        (("--partition", "0", "--offset", "5000"), 1, r"\b0 to \d"),
        (("--offset", "1"), 2, "--partition"),
        (("--partition", "0", "--offset", "1", "--newest"), 2, "--newest"),
        (("-n", "0"), 2, r"-n 0\b.*\b100\b"),
        (("-n", "101"), 2, "--limit"),
        (("--cutouts", "pictures"), 2, "--cutouts"),
    ):
        result = peek(kafka, topic_name, *options)
        assert (result.returncode, bool(re.search(words, result.stderr))) == (status, True), result.stderr
        assert len(remarks(result.stderr)) == 1
    for name, status in ((f"{topic_name}_nowhere", 1), ("\x1b[2J", 2)):
        result = peek(kafka, name)
        assert (result.returncode, len(remarks(result.stderr))) == (status, 1)
        assert "\x1b" not in result.stderr


def test_no_value_reaches_the_terminal_as_a_command_to_it(kafka: Any, topic_name: str) -> None:
    schema = make_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_FULL, 1)
    (alert,) = made_up_alerts(AlertKind.ZTF_FULL, 1)
    alert["objectId"] = alert["finkclass"] = alert["cutoutScience"]["fileName"] = HOSTILE
    alert["mangrove"] = {HOSTILE: HOSTILE}
    alert["prv_candidates"] = [{**one, "programpi": HOSTILE} for one in alert["prv_candidates"] or []]
    produce(kafka.bootstrap_servers, topic_name, [encoder(schema)(alert)])
    piped = peek(kafka, topic_name).stdout
    seen = on_a_terminal("peek", topic_name, "--bootstrap-servers", kafka.bootstrap_servers)
    plain = on_a_terminal("peek", topic_name, "--bootstrap-servers", kafka.bootstrap_servers, NO_COLOR="1")
    assert "\x1b[" in seen, "a terminal has colours"
    for written in (piped, _COLOURS.sub("", seen), _COLOURS.sub("", plain)):
        shown = _WAITING.sub("", written).replace("\r\n", "\n")
        assert all(letter.isprintable() or letter == "\n" for letter in shown)
        assert "[bold]x[/bold]" in shown, "it is no markup"
        assert "y" * 100 not in shown
        assert max(map(len, shown.splitlines())) <= 120
    as_lines = peek(kafka, topic_name, "--json").stdout
    assert all(letter.isprintable() for letter in as_lines.rstrip("\n"))
    assert json.loads(as_lines)["objectId"] == HOSTILE


# As in the C locale, Python lets what is no text through, but not a letter that there is none for.
@pytest.mark.parametrize(
    "encoding",
    [
        "ascii",
        pytest.param("latin-1", marks=pytest.mark.commands),
        pytest.param("ascii:surrogateescape", marks=pytest.mark.commands),
    ],
)
def test_a_terminal_that_is_not_of_utf_8_gets_what_it_has_letters_for(
    kafka: Any, topic_name: str, encoding: str
) -> None:
    schema = make_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 1)
    (alert,) = made_up_alerts(AlertKind.ZTF_LIGHT, 1)
    produce(kafka.bootstrap_servers, topic_name, [encoder(schema)(alert | {"finkclass": "δ Sct"})])
    broker = ("--bootstrap-servers", kafka.bootstrap_servers)
    for arguments in (("peek", topic_name, *broker), ("schema", topic_name, *broker), ("peek", "--help")):
        result = run_cli(*arguments, env={"PYTHONIOENCODING": encoding})
        assert (result.returncode, "error" in result.stderr) == (0, False), result.stderr
        assert arguments[0] == "schema" or arguments[1] == "--help" or "\\u03b4 Sct" in result.stdout


def test_records_that_can_not_be_decoded_are_said_and_the_others_are_shown(kafka: Any, topic_name: str) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 3, partitions=1)
    (bad,) = produce(kafka.bootstrap_servers, topic_name, [b"\x1b[2J"])
    result = peek(kafka, topic_name, "-n", "10", "--json")
    assert result.returncode == 3
    assert len(result.stdout.splitlines()) == len(oracle.values)
    assert f"{topic_name}[0] at offset {bad.offset} " in result.stderr
    assert len(remarks(result.stderr)) == 1


@pytest.mark.parametrize(
    ("kind", "edge"), [pytest.param(AlertKind.ZTF_FULL, 63, marks=pytest.mark.commands), (AlertKind.LSST_FULL, 30)]
)
def test_cutouts_become_pictures(kind: AlertKind, edge: int, kafka: Any, topic_name: str, tmp_path: Path) -> None:
    schema = make_topic(kafka.bootstrap_servers, topic_name, kind, 1)
    alerts = list(made_up_alerts(kind, 2))
    if kind is AlertKind.ZTF_FULL:
        alerts[1]["cutoutScience"]["stampData"] = b"no image"
    values = list(map(encoder(schema), alerts))
    note(Oracle(schema, {}), produce(kafka.bootstrap_servers, topic_name, values), values)
    result = peek(kafka, topic_name, "--cutouts", "pictures", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = {path.name for path in (tmp_path / "pictures").iterdir()}
    wanted = {f"0-{n}-{shown}.png" for n in range(2) for shown in ("science", "template", "difference")}
    if kind is AlertKind.ZTF_FULL:
        wanted.remove("0-1-science.png")
        assert "science" in result.stderr
    assert found == wanted
    assert Image.open(tmp_path / "pictures" / "0-0-science.png").size == (edge, edge)


def test_without_astropy_cutouts_are_refused_with_what_to_type() -> None:
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'astropy' else find(name, *more)\n"
        "from fink_dask.cli.main import main; main(sys.argv[1:])"
    )
    words = ["peek", "topic", "--cutouts", "x", "--bootstrap-servers", "127.0.0.1:1"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 2
    assert "pip install 'fink-dask[report]'" in ended.stderr


def test_every_type_of_avro_is_shown_and_is_valid_json() -> None:
    far = np.array([2**62], np.int64)
    row = pa.RecordBatch.from_pydict(
        {
            "big": pa.array([2**63 - 1]),
            "nothing": pa.array([None], pa.float64()),
            "wrong": pa.array([float("-inf")]),
            "amount": pa.array([Decimal("1.50")]),
            "far": pa.array(far).view(pa.timestamp("us", tz="UTC")),
            "day": pa.array([2**30], pa.int32()).view(pa.date32()),
            "within": pa.array([[{"day": 1}, {"day": 2**30}, None]], pa.list_(pa.struct([("day", pa.int32())]))).cast(
                pa.list_(pa.struct([("day", pa.date32())]))
            ),
            "of": pa.array([[("x", 2**30)]], pa.map_(pa.string(), pa.int32())).cast(pa.map_(pa.string(), pa.date32())),
            "twice": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int32())),
            "once": pa.array([[("a", 1.5)]], pa.map_(pa.string(), pa.float32())),
            "deep": pa.array([[[{"x": b"123"}, None], []]]),
            "empty": pa.array([[]], pa.list_(pa.int32())),
            "many": pa.array([list(range(1000))]),
        }
    )
    found = json.loads(json.dumps(as_json(row), allow_nan=False))
    assert found["big"] == 2**63 - 1
    assert (found["nothing"], found["wrong"], found["amount"]) == (None, None, "1.50")
    assert (found["twice"], found["once"]) == ([["a", 1], ["a", 2]], {"a": 1.5})
    assert found["deep"] == [[{"x": "MTIz"}, None], []]
    assert (found["far"], found["day"]) == (str(2**62), str(2**30))
    assert found["within"] == [{"day": "1970-01-02"}, {"day": str(2**30)}, None]
    assert found["of"] == {"x": str(2**30)}
    shown = io.StringIO()
    Console(file=shown, width=100).print(alert_tree("title", row))
    assert "and 996 more" in shown.getvalue()
    assert str(2**63 - 1) in shown.getvalue()
    assert "null: nothing" in shown.getvalue()
