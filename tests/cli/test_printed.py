"""The lines that Fink's portals and documentation print for its client work with another name in front.

They are facts, taken down on 2026-11-30, with names of topics in place of what a reader is to fill in.
"""

from __future__ import annotations

import shlex
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli
from tests.harness.oracle import assert_exactly_once, fill_topic
from tests.harness.predictions import delete_predicted, fill_predicted, read_predicted
from tests.harness.topics import remove_topics

pytestmark = pytest.mark.commands

ALERTS = 30
PROGRAMS = ("finkctl transfer", "fink_datatransfer")


@dataclass(frozen=True)
class Printed:
    """A line, the page that prints it, and what becomes of it here."""

    source: str
    #: As it is printed; ``TOPIC`` and ``OUTDIR`` stand for the user's.
    line: str
    #: How the name of the topic begins.
    stem: str
    #: The alerts in it.
    kind: AlertKind
    #: How the names of the dataset's directories begin, or those of its files.
    directories: str
    #: Alerts in the dataset.
    rows: int = ALERTS


PORTAL_ZTF = r"""fink_datatransfer \
    -topic TOPIC \
    -outdir TOPIC \
    -partitionby finkclass \
    -survey ztf \
    --verbose
"""
PORTAL_ELASTICC = PORTAL_ZTF.replace("finkclass", "classId")
PRINTED = [
    Printed("ztf.fink-portal.org, download", PORTAL_ZTF, "ftransfer_ztf", AlertKind.ZTF_LIGHT, "finkclass="),
    Printed("the same, full packets", PORTAL_ZTF, "ftransfer_ztf", AlertKind.ZTF_FULL, "finkclass="),
    # Chosen fields, or a survey, without a class.
    Printed("the same, ELAsTiCC", PORTAL_ELASTICC, "ftransfer_elasticc_v2p1", AlertKind.ZTF_LIGHT, "year="),
    Printed(
        "ztf.fink-portal.org, xmatch",
        r"""fink_datatransfer \
    -topic TOPIC \
    -outdir TOPIC \
    --verbose \
    -survey ztf
""",
        "fxmatch_ztf",
        AlertKind.ZTF_LIGHT,
        "part-",
    ),
    Printed(
        "lsst.fink-portal.org, download",
        r"""fink_datatransfer \
    -survey lsst \
    -topic TOPIC \
    -outdir TOPIC \
    --dump_schemas \
    --verbose
""",
        "ftransfer_lsst",
        AlertKind.LSST_FULL,
        "part-",
    ),
    Printed(
        "doc.lsst.fink-broker.org, data transfer",
        r"""fink_datatransfer \
    -survey lsst \
    -topic TOPIC \
    -outdir TOPIC \
    --dump_schemas \
    -outformat avro \
    --verbose
""",
        "ftransfer_lsst",
        AlertKind.LSST_LIGHT,
        "part-",
    ),
    Printed(
        "the same, several consumers",
        r"""fink_datatransfer \
    -topic TOPIC \
    -outdir OUTDIR \
    -survey lsst \
    -nconsumers 5 \
    -batchsize 1000 \
    --dump_schemas \
    --verbose
""",
        "ftransfer_lsst",
        AlertKind.LSST_LIGHT,
        "part-",
    ),
    Printed(
        "fink-broker.org, data transfer",
        r"""fink_datatransfer \
    -topic TOPIC \
    -outdir OUTDIR \
    -partitionby finkclass \
    --verbose \
    -limit 20
""",
        "ftransfer_ztf",
        AlertKind.ZTF_LIGHT,
        "finkclass=",
        rows=20,
    ),
]


def words_of(line: str, topic: str) -> list[str]:
    """Read a line as a shell does, without the name of the program."""
    (program,) = (each for each in PROGRAMS if line.startswith(each))
    return [
        {"TOPIC": topic, "OUTDIR": "alerts"}.get(word, word)
        for word in shlex.split(line.removeprefix(program).replace("\\\n", " "))
    ]


@pytest.mark.parametrize("printed", PRINTED, ids=lambda each: each.source)
def test_a_printed_line_works_letter_for_letter_also_a_second_time(
    kafka: Any, tmp_path: Path, printed: Printed
) -> None:
    topic = f"{printed.stem}_2026-11-30_{uuid.uuid4().int % 10**9}"
    words = words_of(printed.line, topic)
    outdir = tmp_path / words[words.index("-outdir") + 1]
    env = {"FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0"}
    try:
        oracle = fill_topic(kafka.bootstrap_servers, topic, printed.kind, ALERTS, partitions=2)
        for _ in range(2):
            result = run_cli("transfer", *words, cwd=tmp_path, env=env)
            assert result.returncode == 0, result.stderr
    finally:
        remove_topics(kafka.bootstrap_servers, topic)
    assert f"alerts     {printed.rows:,}," in result.stdout
    expected = set(oracle.values) if printed.rows == ALERTS else set(sorted(oracle.values)[: printed.rows])
    assert_exactly_once(outdir, expected)
    assert all(path.name.startswith(printed.directories) for path in outdir.iterdir())
    assert ("--dump_schemas" in words) == (tmp_path / f"arrow_schema_{topic}.metadata").is_file()


def test_the_line_of_predictions_works_letter_for_letter_also_a_second_time(kafka: Any, tmp_path: Path) -> None:
    line = r"""finkctl transfer \
    -survey ztf \
    -topic TOPIC \
    -outdir TOPIC \
    -partitionby finkclass \
    --verbose
"""
    env = {"FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0"}
    made = fill_predicted(kafka.bootstrap_servers, ALERTS)
    try:
        for _ in range(2):
            result = run_cli("transfer", *words_of(line, made.topic), cwd=tmp_path, env=env)
            assert result.returncode == 0, result.stderr
            assert read_predicted(tmp_path / made.topic) == made.expected()
    finally:
        delete_predicted(made)
    assert all(path.name.startswith("finkclass=") for path in (tmp_path / made.topic).iterdir())
