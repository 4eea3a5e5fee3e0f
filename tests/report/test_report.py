"""The page of a report tells the truth about a dataset, whatever state it is in; seen in a real browser."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import summarise
from fink_dask.report.sky import project
from tests.alerts.made_up import AlertKind
from tests.harness.cli import Shared, remarks, run_cli, transfer_arguments
from tests.harness.dashboard import PICTURES, keep_picture
from tests.harness.ledgers import make_ledger, make_plan, transfer
from tests.harness.oracle import fill_topic, fill_with
from tests.harness.producer import produce
from tests.harness.report import painted, shown_report, tile, troubles
from tests.harness.running import Running
from tests.harness.sky import alerts_on_the_sky
from tests.harness.topics import delete_records_before

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("shared_dask")]

PHONE, DESK = (390, 844), (1400, 1000)
HOSTILE = (
    "</script><script>document.title=1</script><img src=x onerror='document.title=2'>{{ 7 * 7 }}$$x$$\x1b[31m\u202e"
)
#: How HOSTILE looks where it is shown.
SEEN = HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}").replace("\u202e", "\N{REPLACEMENT CHARACTER}")


def made(outdir: str | Path, cwd: Path) -> str:
    """Make a report, as somebody types it, and return the page."""
    (cwd / "report.html").unlink(missing_ok=True)  # that of another dataset is not replaced
    result = run_cli("report", str(outdir), "-o", "report.html", cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"report\.html: [\d.]+ MB\n", result.stdout)
    return (cwd / "report.html").read_text()


def left_out(page: str) -> dict[str, str]:
    """Read which panels are left out, and why."""
    found = re.findall(r'<p class="note" id="([\w-]+)-left-out">(.*?)</p>', page, re.DOTALL)
    return {name: unescape(re.sub(r"\s+", " ", words)) for name, words in found}


@pytest.mark.usefixtures("chromium")
def test_a_dataset_of_full_packets_is_shown_with_everything_that_is_in_it(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    count = 3000 if os.environ.get(PICTURES) else 300
    alerts = alerts_on_the_sky(AlertKind.ZTF_FULL, count)
    # So many ranges that there is something to see over time.
    oracle = fill_with(
        kafka.bootstrap_servers, topic_name, AlertKind.ZTF_FULL, alerts, 24 if os.environ.get(PICTURES) else 8
    )
    produce(kafka.bootstrap_servers, topic_name, [b"no alert", b"\xff" * 30])
    lost = delete_records_before(kafka.bootstrap_servers, topic_name, 3, 20)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "alerts", "-partitionby", "time", "-nconsumers", "4")
    assert run_cli(*arguments).returncode == 3
    page = made("alerts", tmp_path)
    summary = summarise(Ledger(tmp_path / "alerts")).summary
    there = [oracle.alert(place) for place in oracle.values if place[0] != 3 or place[1] >= lost]
    assert summary.alerts == len(there)
    assert len(page) < 4_000_000
    assert str(tmp_path) not in page
    assert left_out(page) == {}
    for width, height in (PHONE, DESK):
        with shown_report(tmp_path / "report.html", width, height) as browser:
            assert troubles(browser, width) == []
            charts, canvases = painted(browser)
            assert charts == 6 + 6
            assert canvases >= charts
            assert browser.texts("#topic") == [topic_name]
            assert browser.texts("#state") == ["partial"]
            assert tile(browser, "alerts") == f"{len(there):,}"
            assert (tile(browser, "quarantined"), tile(browser, "lost")) == ("2", "20")
            assert tile(browser, "nights-count") == "3"
            (nights, partitions, sizes) = browser.sources("nights", "partitions", "sizes")
            days = Counter(alert["timestamp"][:10] for alert in there)
            assert nights["top"] == [days[day] for day in sorted(days)]
            planned = summarise(Ledger(tmp_path / "alerts")).planned_offsets
            parts = ("alerts", "filtered", "absent", "quarantined", "lost", "missing")
            assert {part: sum(partitions[part]) for part in parts} == {
                **dict.fromkeys(parts, 0), "alerts": len(there), "quarantined": 2, "lost": lost
            }  # fmt: skip
            assert sum(sum(partitions[part]) for part in parts) == planned
            assert sum(sizes["top"]) == summary.files
            (speed,) = browser.sources("speed")
            widths = np.array(speed["right"]) - np.array(speed["left"])
            assert (widths * np.array(speed["top"])).sum() == pytest.approx(len(there), rel=0.01)
            classes = Counter(alert["finkclass"] or "no class" for alert in there)
            names, numbers = browser.texts("#classes .name"), browser.texts("#classes .number")
            assert dict(zip(names, numbers, strict=True)) == {name: f"{classes[name]:,}" for name in classes}
            for band, fid in (("g", 1), ("r", 2)):
                (drawn,) = browser.sources(f"magnitudes-{band}")
                of_band = [alert["candidate"] for alert in there if alert["candidate"]["fid"] == fid]
                # The last step is drawn to its end.
                assert sum(drawn["y"][:-1]) == pytest.approx(sum(one["magpsf"] is not None for one in of_band), abs=2)
            if len(there) <= 2000:
                (drawn,) = browser.sources("positions")
                x, y = project(*(np.array([one["candidate"][name] for one in there]) for name in ("ra", "dec")))
                assert np.allclose(sorted(zip(drawn["x"], drawn["y"], strict=True)), sorted(zip(x, y, strict=True)))
            assert browser.evaluate("[...document.images].map((each) => each.naturalWidth)") == [63] * 18
            objects = {alert["objectId"] for alert in there}
            shown = browser.texts("h3.object")
            assert len(set(shown) & objects) == 6
            (curve,) = browser.sources("curve0-r")
            assert max(curve["x"]) <= 0
            assert len(browser.texts("#reasons tbody tr")) == 2
            assert browser.texts("#losses tbody tr td")[:3] == ["3", "0", "20"]
            assert sum(float(words.replace(",", "")) for words in browser.texts("#stages td.n:nth-child(2)")) > 0
            if (width, height) == DESK:
                keep_picture(browser, "report.png", tmp_path)


@pytest.mark.usefixtures("chromium")
def test_what_comes_from_outside_is_text_and_nothing_else(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    alerts = alerts_on_the_sky(AlertKind.LSST_FULL, 16)
    for number, alert in enumerate(alerts):
        alert["xm"]["simbad_otype"] = HOSTILE if number % 2 else "x" * 10_000
        source = alert["diaSource"]
        source["band"], source["ra"], source["psfFlux"], source["midpointMjdTai"] = HOSTILE, 1e300, math.inf, -1e300
        for earlier in alert["prvDiaSources"] or []:
            earlier["band"], earlier["psfFlux"] = HOSTILE, 1e38
    fill_with(kafka.bootstrap_servers, topic_name, AlertKind.LSST_FULL, alerts, 4)
    assert run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts")).returncode == 0
    page = made("alerts", tmp_path)
    assert "x" * 200 not in page
    assert left_out(page).keys() == {"positions", "magnitudes"}
    with shown_report(tmp_path / "report.html", *PHONE) as browser:
        assert troubles(browser, PHONE[0]) == []
        assert browser.evaluate("document.title") == topic_name
        assert sorted(browser.texts("#classes .name")) == [SEEN, "x" * 120 + "…"]


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("options", [["-partitionby", "time"], []], ids=["directories", "columns"])
def test_one_wrong_time_makes_no_needles_of_the_nights_and_no_class_is_nameless(
    options: list[str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    alerts = alerts_on_the_sky(AlertKind.ZTF_LIGHT, 60)
    there = Counter(alert["timestamp"][:10] for alert in alerts[1:])
    alerts[0]["jd"] = 2_488_069.5  # the year 2100
    for alert in alerts[:3]:
        alert["finkclass"] = ""
    fill_with(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, alerts, 4)
    assert run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts", *options)).returncode == 0
    page = made("alerts", tmp_path)
    assert f"Nights: {min(there)} to {max(there)}; 1 alert on 2100-01-01" in page
    with shown_report(tmp_path / "report.html", *PHONE) as browser:
        assert troubles(browser, PHONE[0]) == []
        (nights,) = browser.sources("nights")
        assert nights["top"] == [there[day] for day in sorted(there)]
        assert "1 alert on 2100-01-01" in browser.texts("#far-nights")[0]
        classes = dict(zip(browser.texts("#classes .name"), browser.texts("#classes .number"), strict=True))
        assert classes["(empty)"] == "3"


@pytest.mark.sample
@pytest.mark.usefixtures("chromium")
def test_a_hostile_ledger_is_text_as_well_and_a_dataset_in_the_making_is_shown(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 100), OffsetRange(0, 100, 200), OffsetRange(7, 0, 50)], topic=HOSTILE[:100])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    ledger.profiles_path.mkdir()
    (ledger.profiles_path / "00000001.json").write_text("no profile")
    page = made("alerts", tmp_path)
    assert {"positions", "magnitudes", "nights", "classes", "examples"} - left_out(page).keys() == {"nights"}
    with shown_report(tmp_path / "report.html", *PHONE) as browser:
        assert troubles(browser, PHONE[0]) == []
        assert browser.texts("#topic") == [SEEN[:100]]
        assert browser.texts("#state") == ["interrupted"]
        assert tile(browser, "missing") == "150"
        (partitions,) = browser.sources("partitions")
        assert partitions["partition"] == [0, 7]
        assert partitions["missing"] == [100, 50]
        assert partitions["absent"] == [10, 0]


def test_it_is_made_while_a_transfer_runs(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 2000)
    running = Running(kafka, topic_name, tmp_path / "alerts", "--follow", "--idle-timeout", "10m")
    try:
        running.wait_until_committed(3)
        page = made("alerts", tmp_path)
    finally:
        running.kill()
    assert 'id="state">running<' in page
    assert 'id="stages-left-out"' in page
    assert 'id="state">running<' not in made("alerts", tmp_path)  # an older report is replaced


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--columns", "objectId,candid"], {"positions", "magnitudes", "nights", "classes", "examples"}),
        (["--columns", "ra,dec,jd,fid", "-partitionby", "finkclass"], {"magnitudes", "examples"}),
        (["--outformat", "avro", "-partitionby", "time"], {"positions", "magnitudes", "classes", "examples"}),
        (["--where", "magpsf < 0"], {"positions", "magnitudes", "nights", "classes", "examples"}),
        (["--limit", "50"], set()),
    ],
    ids=["ids alone", "no brightness", "avro", "nothing", "a few"],
)
def test_what_a_dataset_lacks_is_left_out_with_a_reason(
    options: list[str], expected: set[str], kafka: Any, topic: str, tmp_path: Path
) -> None:
    if topic not in _filled:
        fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 400)
        _filled.add(topic)
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "alerts", *options))
    assert result.returncode == 0, result.stderr
    found = left_out(made("alerts", tmp_path))
    assert found.keys() == expected
    assert all(len(words) > 15 for words in found.values())
    if "ra,dec,jd,fid" in options:
        assert "magpsf" in found["magnitudes"]


_filled: set[str] = set()


def test_files_that_are_missing_or_markers_that_are_damaged_are_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 100), OffsetRange(0, 100, 200)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    for offset_range in plan.ranges:
        transfer(ledger, plan, offset_range)
    next((tmp_path / "alerts").rglob("*.parquet")).unlink()
    page = made("alerts", tmp_path)
    assert "alerts/class=" in left_out(page)["positions"]
    assert re.search(r'id="state">failed<', page), "who looks at its head takes it for complete"
    assert str(tmp_path) not in page
    ledger.marker_path(plan.ranges[1]).write_text("{}")
    assert re.search(r'id="damaged"><b>1</b>', made("alerts", tmp_path))


def test_a_compacted_dataset_is_shown_without_the_times_that_it_has_not(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 100), OffsetRange(0, 100, 200)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    for offset_range in plan.ranges:
        transfer(ledger, plan, offset_range)
    before = made("alerts", tmp_path)
    assert run_cli("compact", "alerts", "compacted", cwd=tmp_path).returncode == 3
    page = made("compacted", tmp_path)
    assert "compacted" in left_out(page)["speed"]
    assert 'id="seconds"' in before
    assert 'id="seconds"' not in page
    for shown in ('id="alerts"><b>160</b>', "Read in full: 160 alerts"):
        assert shown in before
        assert shown in page


@pytest.mark.commands
def test_a_report_goes_nowhere_where_it_would_do_harm_and_says_what_to_do(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 10)])
    make_ledger(tmp_path / "several" / "one", plan)
    make_ledger(tmp_path / "several" / "other", plan)
    make_ledger(tmp_path / "alerts", plan)
    make_ledger(tmp_path / "other", plan)
    for _ in range(2):
        assert run_cli("report", "alerts", "-o", "alerts.html", cwd=tmp_path).returncode == 0
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        piped = pool.submit((tmp_path / "pipe").read_text)
        assert run_cli("report", "alerts", "-o", "pipe", cwd=tmp_path).returncode == 0
        assert piped.result().endswith("</html>")
    for arguments, status, words in (
        (("nowhere",), 1, "ledger"),
        (("several", "-o", "several/report.html"), 2, "inside"),
        (("other", "-o", "alerts.html"), 2, "alerts.html"),
        (("alerts", "-o", "alerts/report.html"), 2, "inside"),
        (("alerts", "-o", "other/report.html"), 2, "inside"),
        (("alerts", "-o", "alerts.fink/report.html"), 2, "inside"),
        (("alerts", "-o", "mine.html"), 2, "mine.html"),
        (("alerts", "-o", "no/report.html"), 2, "/no "),
        (("alerts", "-o", "several"), 2, "several"),
        (("alerts", "-o", "/dev/stdout", "--json"), 2, "/dev/stdout"),
    ):
        result = run_cli("report", *arguments, cwd=tmp_path)
        assert result.returncode == status, result.stderr
        assert words in result.stderr
        assert len(remarks(result.stderr)) == 1
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    assert not list((tmp_path / "alerts").iterdir())


def test_several_topics_are_one_page_and_one_that_fails_is_said(tmp_path: Path) -> None:
    for name, offsets in (("one", 100), ("other", 50)):
        plan = make_plan([OffsetRange(0, 0, offsets)], topic=name)
        transfer(make_ledger(tmp_path / "nights" / name, plan), plan, plan.ranges[0])
    page = made("nights", tmp_path)
    assert 'id="alerts"><b>120</b>' in page
    assert "Made from nights by" in page
    assert re.search(r'id="topic">2 topics<', page)
    assert re.findall(r"<tr><td>(one|other)</td><td>partial</td><td class=.n.>(\d+)</td>", page) == [
        ("one", "80"),
        ("other", "40"),
    ]
    assert "Read in full: 120 alerts" in page
    assert str(tmp_path) not in page
    make_ledger(tmp_path / "nights" / "worse", plan).plan_path(plan).write_text("{}")
    result = run_cli("report", "nights", "-o", "page.html", cwd=tmp_path)
    assert result.returncode == 1
    (line,) = remarks(result.stderr)
    assert line.startswith("fink-dask: error: ")
    assert "worse" in line
    assert 'id="alerts"><b>120</b>' in (tmp_path / "page.html").read_text()
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    unsaid = run_cli("report", "nights", "-o", "mine.html", cwd=tmp_path)
    assert ["worse" in each for each in remarks(unsaid.stderr)] == [True, False], "the page is not all that failed"


def test_it_opens_a_browser_where_there_is_one(tmp_path: Path) -> None:
    make_ledger(tmp_path / "alerts", make_plan([OffsetRange(0, 0, 10)]))
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{seen}"\n')
    browser.chmod(0o755)
    result = run_cli("report", "alerts", "--open", cwd=tmp_path, env={"BROWSER": f"{browser} %s"})
    assert result.returncode == 0, result.stderr
    assert seen.read_text().strip() == (tmp_path / "report.html").as_uri()


def test_a_dataset_on_an_object_store_has_one(
    kafka: Any, topic_name: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shared, "settings", {})  # the workers that others share have no credentials
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 300, partitions=2)
    arguments = transfer_arguments(kafka, topic_name, Path(), "-partitionby", "time", "-outdir", store_url)
    assert run_cli(*arguments).returncode == 0
    page = made(store_url, tmp_path)
    assert left_out(page) == {}
    assert 'id="alerts"><b>300</b>' in page
    assert f"Made from {store_url} by" in page


def test_without_astropy_cutouts_are_left_out_with_a_word(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    alerts = alerts_on_the_sky(AlertKind.LSST_FULL, 20)
    fill_with(kafka.bootstrap_servers, topic_name, AlertKind.LSST_FULL, alerts, 4)
    assert run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts")).returncode == 0
    # A process that does not find it, as where it is not installed.
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'astropy' else find(name, *more)\n"
        "from fink_dask.cli.main import main; main(sys.argv[1:])"
    )
    subprocess.run([sys.executable, "-c", code, "report", "alerts"], cwd=tmp_path, check=True, timeout=300)
    page = (tmp_path / "report.html").read_text()
    assert "fink-dask[report]" in left_out(page)["cutouts"]
    assert "<img" not in page
