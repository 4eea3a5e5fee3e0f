"""The terminal as a newcomer sees it: ``make screenshots`` keeps its picture for the documentation."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, run_cli
from tests.harness.dashboard import PICTURES
from tests.harness.environments import ROOT
from tests.harness.oracle import fill_topic
from tests.harness.terminal import Terminal
from tests.harness.topics import remove_topics

pytestmark = pytest.mark.browser

TOPIC = "ftransfer_ztf_2026-02-24_123456"
COMMANDS = (
    f"fink-dask transfer --topic {TOPIC} --outdir alerts --partitionby time --dry-run",
    f"fink-dask transfer --topic {TOPIC} --outdir alerts --partitionby time",
    "fink-dask verify alerts",
    "fink-dask status alerts",
)


@pytest.mark.timeout(600)
def test_what_stands_on_the_terminal_after_a_transfer_is_whole(kafka: Any, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, TOPIC, AlertKind.ZTF_LIGHT, 40_000, partitions=10)
    try:
        env = {"FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0"}
        # The decoder is compiled once a machine, which is not what the picture is about.
        run_cli("transfer", "--topic", TOPIC, "--outdir", "a-few", "--limit", "10", cwd=tmp_path, env=env)
        terminal = Terminal(tmp_path, env, width=116)
        for command in COMMANDS:
            assert terminal.type(command, [*PROGRAM, *shlex.split(command)[1:]]) == 0, terminal.text
    finally:
        remove_topics(kafka.bootstrap_servers, TOPIC)
    assert "all 40,000 planned offsets" in terminal.text
    assert "\x1b" not in terminal.text
    wanted = os.environ.get(PICTURES)
    picture = (ROOT / wanted if wanted else tmp_path) / "terminal.svg"
    terminal.picture(picture, "fink-dask", {str(tmp_path): "/home/ada"})
    drawn = "".join(ElementTree.fromstring(picture.read_text()).itertext()).replace("\xa0", " ")
    assert COMMANDS[1] in drawn
    assert str(tmp_path) not in drawn
    assert re.findall(r"""(?:url\(|href=)["']?(?!#)""", picture.read_text()) == [], (
        "it asks somebody else for something"
    )
