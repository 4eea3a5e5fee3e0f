"""Cutouts of chosen objects become files: pictures, or what the survey sent; what can't be read harms no other."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from PIL import Image

from tests.alerts.made_up import AlertKind, made_up_alerts
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.oracle import fill_with
from tests.harness.topics import own_topic

pytestmark = pytest.mark.usefixtures("shared_dask")

SHOWN = {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"}


@dataclass(frozen=True)
class Transferred:
    """A dataset, and the alerts of its objects; the last alert has a template that is none."""

    outdir: Path
    objects: dict[str, list[dict[str, Any]]]
    damaged: str


def identifier_of(alert: dict[str, Any]) -> int:
    return int(alert.get("candid") or alert["diaSourceId"])


def bytes_of(alert: dict[str, Any], shown: str) -> bytes:
    """Return a cutout as a FITS file."""
    said = alert[SHOWN[shown]]
    return said if isinstance(said, bytes) else gzip.decompress(said["stampData"])


@pytest.fixture(scope="module", params=[AlertKind.ZTF_FULL, AlertKind.LSST_FULL], ids=lambda kind: kind.value)
def sent(request: pytest.FixtureRequest, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transferred]:
    kind: AlertKind = request.param
    outdir = tmp_path_factory.mktemp("cutouts") / "alerts"
    alerts = list(made_up_alerts(kind, 20))
    objects: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        name = str(alert.get("objectId") or alert["diaSource"]["diaObjectId"])
        if name != "0":
            objects.setdefault(name, []).append(alert)
    damaged = list(objects)[-1]
    template = objects[damaged][-1]["cutoutTemplate"]
    if isinstance(template, bytes):
        objects[damaged][-1]["cutoutTemplate"] = b"SIMPLE  = junk"
    else:
        template["stampData"] = b"\x1f\x8bjunk"
    with own_topic(kafka.bootstrap_servers, kind) as topic:
        fill_with(kafka.bootstrap_servers, topic, kind, alerts, 1)
        done = run_cli(*transfer_arguments(kafka, topic, outdir))
        assert done.returncode == 0, done.stderr
        yield Transferred(outdir, objects, damaged)


def test_a_report_shows_the_objects_that_were_asked_for(sent: Transferred, tmp_path: Path) -> None:
    names = [name for name in sent.objects if name != sent.damaged][:2]
    chosen = [argument for name in (*names, sent.damaged) for argument in ("--object", name)]
    done = run_cli("report", str(sent.outdir), *chosen, "-o", "page.html", cwd=tmp_path)
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'class="object">(.*?)</h3>', page) == [*names, sent.damaged]
    # Three cutouts of the newest alert of each, one of which is none.
    assert page.count('<img src="data:image/png;base64,') == 8
    assert page.count("can't be read</div>") == 1
    newest = max(sent.objects[names[0]], key=time_of)
    assert f"alert {identifier_of(newest)}" in page
    refused = run_cli("report", str(sent.outdir), "--object", "1234567", "-o", "none.html", cwd=tmp_path)
    assert refused.returncode == 2
    assert "1234567" in refused.stderr
    assert not (tmp_path / "none.html").exists()


def time_of(alert: dict[str, Any]) -> float:
    return float(alert["candidate"]["jd"] if "candidate" in alert else alert["diaSource"]["midpointMjdTai"])


def test_all_cutouts_of_the_objects_are_there_as_they_were_sent(sent: Transferred, tmp_path: Path) -> None:
    names = [name for name in sent.objects if name != sent.damaged][:2]
    chosen = [argument for name in names for argument in ("--object", name)]
    expected = {
        f"{name}-{identifier_of(alert)}-{shown}": bytes_of(alert, shown)
        for name in names
        for alert in sent.objects[name]
        for shown in SHOWN
    }
    done = run_cli("cutouts", str(sent.outdir), *chosen, "-o", str(tmp_path / "f"), "--format", "fits")
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    assert {path.stem: path.read_bytes() for path in (tmp_path / "f").iterdir()} == expected
    done = run_cli("cutouts", str(sent.outdir), names[0], *chosen, "-o", str(tmp_path / "p"))
    assert (done.returncode, remarks(done.stderr)) == (0, [])
    pictures = {path.stem: Image.open(path).size for path in (tmp_path / "p").iterdir()}
    assert pictures == {stem: fits.getdata(io.BytesIO(data)).shape[::-1] for stem, data in expected.items()}


def test_what_can_not_be_read_is_counted_and_the_others_are_written(sent: Transferred, tmp_path: Path) -> None:
    done = run_cli("cutouts", str(sent.outdir), "--object", sent.damaged, "-o", str(tmp_path / "p"))
    assert done.returncode == 3
    assert "1 cutout" in done.stderr
    assert len(list((tmp_path / "p").iterdir())) == 3 * len(sent.objects[sent.damaged]) - 1


def test_objects_are_named_as_for_a_light_curve_and_in_that_order(sent: Transferred, tmp_path: Path) -> None:
    name = next(name for name in sent.objects if name != sent.damaged)
    done = run_cli("cutouts", str(sent.outdir), name, "--json", cwd=tmp_path)
    assert (done.returncode, len(json.loads(done.stdout)["files"][name])) == (0, 3 * len(sent.objects[name]))
    assert len(list((tmp_path / "cutouts").iterdir())) == 3 * len(sent.objects[name])
    for typed, words in (((name, str(sent.outdir)), f"{sent.outdir} is one"), ((str(sent.outdir),), "OBJECT")):
        refused = run_cli("cutouts", *typed, cwd=tmp_path)
        assert (refused.returncode, words in refused.stderr) == (2, True)


@pytest.mark.parametrize("name", ["../../etc", "ZTF00nobody", "9" * 40])
def test_no_such_object_is_a_line_and_no_directory(sent: Transferred, tmp_path: Path, name: str) -> None:
    done = run_cli("cutouts", str(sent.outdir), "--object", name, "-o", str(tmp_path / "p"))
    assert done.returncode == 2
    assert len(remarks(done.stderr)) == 1
    assert not list(tmp_path.iterdir())
