"""Of an alert that several topics hold, one is left in the compacted season, whatever is killed or comes later."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

import fink_dask
from fink_dask.compaction.compact import Caller, Compacted
from fink_dask.compaction.groups import Form
from fink_dask.compaction.season import compact_season
from fink_dask.compaction.task import Threads
from fink_dask.errors import FinkDaskError, SettingsError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import datasets_in, gather_ledgers
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.harness.cli import run_cli
from tests.harness.crash import run_until
from tests.harness.nights import Alert, add_night

SCHEMA = avro_schema(AlertKind.ZTF_LIGHT)
UNIQUE = Form(unique="candid")
#: Which alerts a topic holds: the second has some of the first, twice; the third has nothing new.
NIGHTS = {"b": range(20), "c": [*range(10, 40), *range(10, 15)], "d": range(15, 30)}


@pytest.fixture(scope="module")
def alerts() -> list[Alert]:
    return list(made_up_alerts(AlertKind.ZTF_LIGHT, 60))


@pytest.fixture
def nights(tmp_path: Path, alerts: list[Alert]) -> Path:
    return season(tmp_path / "nights", alerts, NIGHTS)


def season(directory: Path, alerts: list[Alert], which: dict[str, range | list[int]]) -> Path:
    for name, numbers in which.items():
        add_night(directory / name, SCHEMA, [alerts[number] for number in numbers])
    gather_ledgers(directory)
    return directory


def compact(directory: Path, newdir: Path) -> dict[str, Compacted | FinkDaskError]:
    return compact_season(datasets_in(directory), newdir, UNIQUE, Threads(1), Caller())


def held(directory: Path) -> list[tuple[str, int]]:
    """List topic and identifier of all alerts that a reader finds."""
    if not datasets_in(directory):
        return []
    table = fink_dask.open_dataset(directory).to_table(columns=["topic", "candid"])
    return sorted(zip(table["topic"].to_pylist(), table["candid"].to_pylist(), strict=True))


def assert_each_once(directory: Path, alerts: list[Alert], numbers: range) -> None:
    assert sorted(identifier for _, identifier in held(directory)) == sorted(
        alerts[number]["candid"] for number in numbers
    )
    found = fink_dask.verify(directory, progress=False)
    assert found.is_complete, found.problems


def test_a_compacted_season_has_what_open_dataset_gives_of_each_alert_once(
    nights: Path, tmp_path: Path, alerts: list[Alert]
) -> None:
    done = compact(nights, tmp_path / "few")
    once = fink_dask.open_dataset(nights, unique=True).to_table(columns=["topic", "candid"])
    assert held(tmp_path / "few") == sorted(zip(once["topic"].to_pylist(), once["candid"].to_pylist(), strict=True))
    assert_each_once(tmp_path / "few", alerts, range(40))
    assert [each.summary.duplicates for each in done.values() if isinstance(each, Compacted)] == [0, 15, 15]
    assert not any(each.is_new for each in compact(nights, tmp_path / "few").values() if isinstance(each, Compacted))
    # A topic whose name comes first gets only what no other has, as theirs are complete.
    season(nights, alerts, {"a": range(5, 50)})
    compact(nights, tmp_path / "few")
    assert_each_once(tmp_path / "few", alerts, range(50))
    assert Counter(topic for topic, _ in held(tmp_path / "few")) == {"a": 10, "b": 20, "c": 20}


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.kills)])
def test_no_kill_while_a_season_is_compacted_loses_or_doubles_an_alert(
    nights: Path, tmp_path: Path, alerts: list[Alert], every: int
) -> None:
    # What has come meanwhile, and would be first, does not get the alerts of what is all but done.
    for name in ("nights", "nights.fink"):
        shutil.copytree(tmp_path / name, tmp_path / "later" / name)
    later = season(tmp_path / "later" / "nights", alerts, {"a": range(5, 50)})
    for after in count(1, every):
        newdir = tmp_path / str(after) / "few"
        newdir.parent.mkdir()
        killed = run_until(after, compact, nights, newdir)
        found = held(newdir)
        assert len({identifier for _, identifier in found}) == len(found), "an alert is there twice"
        if not killed:
            break
        run_until(1 + 11 * after % 30, compact, later, newdir)
        done = compact(later, newdir)
        assert [each for each in done.values() if isinstance(each, FinkDaskError)] == []
        assert_each_once(newdir, alerts, range(50))


def test_what_fails_takes_no_alert_with_it(nights: Path, tmp_path: Path, alerts: list[Alert]) -> None:
    (file,) = (nights / "b").rglob("*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    done = compact(nights, tmp_path / "few")
    assert [name for name, each in done.items() if isinstance(each, FinkDaskError)] == ["b"]
    assert_each_once(tmp_path / "few", alerts, range(10, 40))
    file.write_bytes(content)
    compact(nights, tmp_path / "few")
    assert_each_once(tmp_path / "few", alerts, range(40))


def test_topics_whose_alerts_can_t_be_told_apart_are_refused_before_anything_is_written(
    nights: Path, tmp_path: Path
) -> None:
    lsst = list(made_up_alerts(AlertKind.LSST_LIGHT, 5))
    add_night(nights / "e", avro_schema(AlertKind.LSST_LIGHT), lsst)
    with pytest.raises(SettingsError, match=r"^e: .*candid"):
        compact(nights, tmp_path / "few")
    texts = [field | ({"type": "string"} if field["name"] == "candid" else {}) for field in SCHEMA["fields"]]
    alert = next(made_up_alerts(AlertKind.ZTF_LIGHT, 1))
    add_night(tmp_path / "nights2" / "a", {**SCHEMA, "fields": texts}, [alert | {"candid": "1"}])
    add_night(tmp_path / "nights2" / "b", SCHEMA, [alert])
    with pytest.raises(SettingsError, match="string in a"):
        compact(tmp_path / "nights2", tmp_path / "few")
    assert not (tmp_path / "few").exists()
    assert not Ledger(tmp_path / "few").path.exists()


def test_a_dataset_that_is_compacted_into_a_season_is_told_its_place_there(
    nights: Path, tmp_path: Path, alerts: list[Alert]
) -> None:
    alone = add_night(tmp_path / "alone", SCHEMA, alerts[40:50])
    refused = run_cli("compact", str(alone.outdir), str(nights))
    place = nights / alone.begun_with().topic
    assert (refused.returncode, str(place) in refused.stderr) == (2, True)
    assert run_cli("compact", str(alone.outdir), str(place)).returncode == 0
    again = run_cli("compact", str(alone.outdir), str(nights))
    assert (again.returncode, str(place) in again.stderr) == (2, False), "each alert would be there twice"
    assert fink_dask.open_dataset(nights).count_rows() == 80


def test_the_command_says_how_many_were_left_out(nights: Path, tmp_path: Path) -> None:
    done = run_cli("compact", str(nights), str(tmp_path / "few"), "--unique", "candid")
    assert done.returncode == 0, done.stderr
    assert "30 duplicates" in done.stdout
    assert "warning" not in done.stderr
