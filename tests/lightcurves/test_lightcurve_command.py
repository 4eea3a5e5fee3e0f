"""What ``fink-dask lightcurve`` shows and writes is the light curve, and each slip is a line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fink_dask
from fink_dask.cli.lightcurve import check_order
from fink_dask.errors import SettingsError
from fink_dask.kafka.offsets import OffsetRange
from tests.alerts.made_up import AlertKind
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.ledgers import make_ledger, make_plan
from tests.harness.oracle import fill_topic
from tests.harness.topics import own_topic

pytestmark = pytest.mark.usefixtures("shared_dask")


@pytest.fixture(scope="module")
def outdir(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("curves") / "alerts"
    with own_topic(kafka.bootstrap_servers) as topic:
        fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_FULL, 10, partitions=1)
        done = run_cli(*transfer_arguments(kafka, topic, path))
        assert done.returncode == 0, done.stderr
        yield path


@pytest.fixture(scope="module")
def name(outdir: Path) -> str:
    return str(fink_dask.open_dataset(outdir).head(1, columns=["objectId"])["objectId"][0])


def test_all_ways_out_have_the_same_measurements(outdir: Path, name: str, tmp_path: Path) -> None:
    expected = fink_dask.light_curve(outdir, name)
    shown = run_cli("lightcurve", str(outdir), name)
    assert (shown.returncode, remarks(shown.stderr)) == (0, [])
    assert f"{expected.num_rows} measurements" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    said = json.loads(run_cli("lightcurve", str(outdir), name, "--json").stdout)
    assert (said["object"], said["measurements"], said["state"]) == (name, expected.to_pylist(), "complete")
    written = run_cli(
        "lightcurve", str(outdir), name, "--csv", str(tmp_path / "c.csv"), "--plot", str(tmp_path / "c.html")
    )
    assert written.returncode == 0, written.stderr
    text = (tmp_path / "c.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [float(row["mjd"]) for row in rows] == expected["mjd"].to_pylist()
    brightness = [None if value is None else np.float32(value) for value in expected["value"].to_pylist()]
    assert [row["value"] for row in rows] == ["" if value is None else str(value) for value in brightness]
    counts = Counter(expected["kind"].to_pylist())
    assert f"{counts['alert']} alert{'s' * (counts['alert'] > 1)}" in shown.stdout
    assert "writes all" not in written.stdout
    assert [row["source"] for row in rows] == [
        "" if one is None else str(one) for one in expected["source"].to_pylist()
    ]
    for stdout in ("-", "/dev/stdout", "/dev/fd/1"):
        printed = run_cli("lightcurve", str(outdir), "--object", name, "--csv", stdout)
        assert (printed.stdout, remarks(printed.stderr)) == (text, [])
    assert run_cli("lightcurve", str(outdir), name, "--csv", os.devnull, "--plot", os.devnull).returncode == 0
    page = (tmp_path / "c.html").read_text()
    assert name in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page), "a page that is opened on a plane shows nothing"
    for option, file in (("--csv", tmp_path / "c.csv"), ("--plot", tmp_path / "c.html")):
        file.write_text("somebody's own")
        refused = run_cli("lightcurve", str(outdir), name, option, str(file))
        assert (refused.returncode, str(file) in refused.stderr) == (2, True)
        assert file.read_text() == "somebody's own"


def test_all_objects_can_be_had_where_a_terminal_shows_the_first(outdir: Path, tmp_path: Path) -> None:
    alerts = Counter(fink_dask.open_dataset(outdir).to_table(columns=["objectId"])["objectId"].to_pylist())
    written = run_cli("lightcurve", str(outdir), "--csv", str(tmp_path / "objects.csv"))
    text = (tmp_path / "objects.csv").read_text()
    assert {row["object"]: int(row["alerts"]) for row in csv.DictReader(text.splitlines())} == alerts
    assert "objects.csv" in written.stdout
    assert run_cli("lightcurve", str(outdir), "--csv", "-").stdout == text


def test_a_slip_in_the_dataset_s_name_is_not_taken_for_swapped_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ledger(tmp_path / "alerts", make_plan([OffsetRange(0, 0, 8)]))
    (tmp_path / "alerts").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "alerts")  # an empty name is none, and not that of this directory
    check_order(Path("nowhere"), ("", " ", "a" * 300, "a\0b"))
    with pytest.raises(SettingsError, match="is one"):
        check_order(Path("nowhere"), (str(tmp_path / "alerts"),))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{outdir}", "ZTF00nobody"), "ZTF00nobody"),
        (("{outdir}", "--plot", "curve.html"), "OBJECT"),
        (("{outdir}", "a\x1b[31m\nb"), "no alert"),
        (("{outdir}", "{name}", "--plot", "curve.png"), ".html"),
        (("{outdir}", "{name}", "--json", "--csv", "-"), "--csv"),
        (("{outdir}", "{name}", "--csv", "{outdir}/nowhere/c.csv"), "nowhere"),
        (("{outdir}x", "{name}"), "{outdir}x"),
        (("{name}", "{outdir}"), "{outdir} is one"),
        (("{outdir}", "{name}", "--json", "--csv", "/dev/stdout"), "--csv"),
        (("{outdir}", "{name}", "--plot", "/dev/stdout", "--csv", "-"), "--plot"),
    ],
)
def test_each_slip_is_a_line(outdir: Path, name: str, arguments: tuple[str, ...], words: str) -> None:
    said = run_cli("lightcurve", *(each.format(outdir=outdir, name=name) for each in arguments))
    assert said.returncode in {1, 2}
    (line,) = remarks(said.stderr)
    assert words.format(outdir=outdir) in line
    assert line.isprintable()


def test_a_dataset_whose_alerts_are_all_elsewhere_has_no_objects_and_says_so(
    outdir: Path, name: str, tmp_path: Path
) -> None:
    alerts = fink_dask.open_dataset(outdir).count_rows()
    here = tmp_path / "alerts"
    shutil.copytree(outdir, here)
    shutil.copytree(f"{outdir}.fink", f"{here}.fink")
    names = run_cli("hand-over", str(here)).stdout.splitlines()
    (tmp_path / "list").write_text("\n".join(f"./{name}" for name in names))
    for _ in range(2):
        done = run_cli("hand-over", str(here), "--copied", str(tmp_path / "list"))
        assert (done.returncode, "handed over" in done.stdout) == (0, True), done.stderr
    said = run_cli("lightcurve", str(here), "--json")
    assert (said.returncode, json.loads(said.stdout)["objects"]) == (0, 0), said.stderr
    for typed in (
        ("lightcurve", str(here)),
        ("lightcurve", str(here), name),
        ("cutouts", str(here), "--object", name, "-o", str(tmp_path / "pictures")),
        ("read", str(here)),
        ("export", str(here), str(tmp_path / "table.csv")),
    ):
        (line,) = remarks(run_cli(*typed).stderr)
        assert f"{alerts:,} handed over" in line, "it looks as if there had been none"
    page = tmp_path / "report.html"
    assert run_cli("report", str(here), "-o", str(page)).returncode == 0
    assert f"{alerts} alerts of 1 range handed over" in page.read_text()
