"""A catalog grows: after each night it is what it would be had it been made at once, whatever is killed meanwhile."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import fink_dask
from fink_dask.catalog import gather, hats, state
from fink_dask.catalog.form import MOVERS
from fink_dask.catalog.hats import export_hats
from fink_dask.errors import LedgerError, SettingsError, StorageError
from fink_dask.lightcurves.points import SCHEMA
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.harness.catalogs import content_of, same_rows
from tests.harness.crash import run_until
from tests.harness.nights import add_night

COUNT = 60
#: So small that pixels have few objects, and divide as these get more.
SMALL_FILE = 12_000


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "FILE_BYTES", SMALL_FILE)


def season(parent: Path, kind: AlertKind, nights: int = 2, count: int = COUNT) -> list[Path]:
    """Make the dataset of each night, in a directory with all of them; returns what has the first ones."""
    alerts = list(made_up_alerts(kind, count))
    found = []
    for night in range(nights):
        mine = alerts[night::nights]
        directory = parent / f"{night + 1}-nights"
        if found:
            shutil.copytree(found[-1], directory, copy_function=os.link)
            mine += alerts[:2]  # again, as another topic has them
        add_night(directory / f"ftransfer_{night}", avro_schema(kind), mine)
        found.append(directory)
    return found


def catalogs(place: Path) -> list[Path]:
    """List what is there of the two."""
    return [each for each in (place, place / MOVERS) if (each / "collection.properties").exists()]


def assert_same(one: Path, other: Path) -> None:
    assert [each.name for each in catalogs(one)[1:]] == [each.name for each in catalogs(other)[1:]]
    assert all(same_rows(*pair) for pair in zip(catalogs(one), catalogs(other), strict=True))


@pytest.mark.parametrize(
    ("kind", "has_history"),
    [pytest.param(AlertKind.LSST_FULL, True, marks=pytest.mark.readers), (AlertKind.ZTF_LIGHT, False)],
)
def test_a_catalog_that_grew_is_the_same_as_one_made_at_once(
    tmp_path: Path, kind: AlertKind, has_history: bool
) -> None:
    directories = season(tmp_path, kind)
    versions = []
    for directory in directories:
        said = export_hats(directory, tmp_path / "grown", has_history=has_history or None)
        versions.append(content_of(tmp_path / "grown"))
        assert said.added > 0
        assert said.duplicates == (0 if directory is directories[0] else 2)
    assert export_hats(directories[-1], tmp_path / "grown").added == 0
    once = export_hats(directories[-1], tmp_path / "once", has_history=has_history)
    assert once.alerts + once.movers == COUNT
    assert_same(tmp_path / "grown", tmp_path / "once")
    first, last = ({pixel for what, pixel in each if not what} for each in (versions[0], versions[-1]))
    assert last - first  # some were divided, and some are new
    assert not list(tmp_path.glob("*/.*"))


@pytest.mark.readers
def test_light_curves_with_history_have_the_points_of_light_curve(tmp_path: Path) -> None:
    for kind in (AlertKind.ZTF_FULL, AlertKind.LSST_FULL):
        (directory,) = season(tmp_path / kind, kind, nights=1, count=16)
        export_hats(directory, tmp_path / kind / "catalog", has_history=True)
        found: dict[Any, list[Any]] = {}
        for (what, _), table in content_of(tmp_path / kind / "catalog").items():
            for row in table.to_pylist() if not what else ():
                columns = [row["lightcurve"][name] for name in SCHEMA.names]
                found[row.get("objectId") or row["diaObjectId"]] = list(zip(*columns, strict=True))
        assert len(found) > 4
        for name, points in list(found.items())[:4]:
            curve = fink_dask.light_curve(directory, name)
            expected = list(zip(*(curve[column].to_pylist() for column in SCHEMA.names), strict=True))
            assert sorted(points, key=repr) == sorted(expected, key=repr)
            assert [point[0] for point in points] == [point[0] for point in expected]


def test_an_alert_that_two_topics_hold_is_there_once_and_the_topic_says_where(tmp_path: Path) -> None:
    *_, both = season(tmp_path, AlertKind.ZTF_LIGHT, nights=2)
    said = export_hats(both, tmp_path / "catalog")
    assert (said.alerts, said.duplicates) == (COUNT, 2)
    topics: dict[str, int] = defaultdict(int)
    for (what, _), table in content_of(tmp_path / "catalog").items():
        for row in table.to_pylist() if not what else ():
            for topic in row["lightcurve"]["topic"]:
                topics[topic] += 1
    assert topics == {"ftransfer_0": COUNT // 2, "ftransfer_1": COUNT // 2}


def test_of_a_topic_that_has_grown_only_what_is_new_is_read(tmp_path: Path) -> None:
    schema, alerts = avro_schema(AlertKind.ZTF_LIGHT), list(made_up_alerts(AlertKind.ZTF_LIGHT, 30))
    for mine in (alerts[:20], alerts[20:]):
        add_night(tmp_path / "ftransfer_0", schema, mine)
        said = export_hats(tmp_path / "ftransfer_0", tmp_path / "catalog")
        assert said.added == len(mine)
    moved = (tmp_path / "catalog").rename(tmp_path / "moved")  # it goes by its name wherever it is
    add_night(tmp_path / "ftransfer_1", schema, alerts[:5])
    assert export_hats(tmp_path / "ftransfer_1", moved).duplicates == 5
    export_hats(tmp_path / "ftransfer_0", tmp_path / "once")
    assert same_rows(moved, tmp_path / "once")


def test_of_the_same_alert_in_a_light_and_a_full_packet_the_full_one_is_in_a_light_curve_with_history(
    tmp_path: Path,
) -> None:
    light, alerts = avro_schema(AlertKind.ZTF_LIGHT), list(made_up_alerts(AlertKind.ZTF_FULL, 12))
    names = [field["name"] for field in light["fields"]]
    cut = [{name: each["candidate"].get(name, each.get(name)) for name in names} for each in alerts]
    add_night(tmp_path / "season" / "ftransfer_0", light, cut)
    add_night(tmp_path / "season" / "ftransfer_1", avro_schema(AlertKind.ZTF_FULL), alerts)
    said = export_hats(tmp_path / "season", tmp_path / "catalog", has_history=True)
    assert (said.alerts, said.duplicates) == (12, 12)
    for (what, _), table in content_of(tmp_path / "catalog").items():
        for row in table.to_pylist() if not what else ():
            points = list(zip(*(row["lightcurve"][name] for name in SCHEMA.names), strict=True))
            curve = fink_dask.light_curve(tmp_path / "season", row["objectId"])
            expected = list(zip(*(curve[name].to_pylist() for name in SCHEMA.names), strict=True))
            assert sorted(points, key=repr) == sorted(expected, key=repr)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["publish", pytest.param("seal", marks=pytest.mark.readers)])
def test_what_was_interrupted_is_not_seen_and_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    first, second = season(tmp_path, AlertKind.LSST_LIGHT, nights=2)
    export_hats(first, tmp_path / "grown")
    before = [content_of(each) for each in catalogs(tmp_path / "grown")]
    with monkeypatch.context() as patch:
        patch.setattr(state, at, _interrupted)
        patch.setattr(hats.shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            export_hats(second, tmp_path / "grown")
    after = [content_of(each) for each in catalogs(tmp_path / "grown")]
    assert [each.keys() for each in after] == [each.keys() for each in before]
    assert all(
        repr(table) == repr(each[key]) for each, old in zip(after, before, strict=True) for key, table in old.items()
    )
    export_hats(second, tmp_path / "grown")
    export_hats(second, tmp_path / "once")
    assert_same(tmp_path / "grown", tmp_path / "once")
    assert not list(tmp_path.glob("grown/.*"))


def _grow(directory: Path, catalog: Path) -> None:
    gather.FILE_BYTES = SMALL_FILE
    export_hats(directory, catalog)


@pytest.mark.kills
def test_no_kill_after_any_operation_of_a_growth_shows_half_of_it_or_loses_or_doubles_an_alert(tmp_path: Path) -> None:
    first, second = season(tmp_path, AlertKind.LSST_LIGHT, nights=2, count=40)
    export_hats(first, tmp_path / "start")
    export_hats(second, tmp_path / "once")
    olds, news = (catalogs(tmp_path / name) for name in ("start", "once"))
    for count in itertools.count(1, 9):
        grown = tmp_path / f"grown-{count}"
        shutil.copytree(tmp_path / "start", grown, symlinks=True)
        was_killed = run_until(count, _grow, second, grown)
        # A reader finds the old or the new ones, of objects and of what moves.
        found = catalogs(grown)
        assert any(all(same_rows(*pair) for pair in zip(found, expected, strict=True)) for expected in (olds, news))
        export_hats(second, grown)
        assert_same(grown, tmp_path / "once")
        shutil.rmtree(grown)
        if not was_killed:
            break
    assert count > 50


def test_objects_and_what_moves_are_seen_to_grow_at_once_and_a_copy_with_its_links_grows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever both readers find at each moment of a growth, it is of the same season."""
    first, second = season(tmp_path, AlertKind.LSST_LIGHT, nights=2, count=20)
    for directory, name in ((first, "copy"), (second, "once")):
        export_hats(directory, tmp_path / name)
    shutil.copytree(tmp_path / "copy", tmp_path / "grown", symlinks=True)
    seen: list[tuple[str, ...]] = []

    def looking(real: Any) -> Any:
        def looked(*args: Any, **options: Any) -> Any:
            done = real(*args, **options)
            seen.append(tuple((each / "collection.properties").read_text() for each in catalogs(tmp_path / "grown")))
            return done

        return looked

    for name in ("rename", "symlink", "mkdir", "replace", "fsync"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    export_hats(second, tmp_path / "grown")
    monkeypatch.undo()
    assert_same(tmp_path / "grown", tmp_path / "once")
    assert len(set(seen)) == 2, "both change in one moment"
    shutil.copytree(tmp_path / "copy", tmp_path / "followed")  # each link as what it leads to
    with pytest.raises(LedgerError, match="links"):
        export_hats(second, tmp_path / "followed")
    assert_same(tmp_path / "followed", tmp_path / "copy")


def test_who_grows_a_catalog_is_alone_and_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    (directory,) = season(tmp_path, AlertKind.ZTF_LIGHT, nights=1, count=10)
    catalog = tmp_path / "catalog"
    export_hats(directory, catalog, ["magpsf"])
    for options in ({"columns": ["jd"]}, {"has_history": True}):
        with pytest.raises(SettingsError, match="begun"):
            export_hats(directory, catalog, **options)  # type: ignore[arg-type]
    assert export_hats(directory, catalog, ["magpsf"]).added == 0
    descriptor = os.open(catalog, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another"):
            export_hats(directory, catalog)
    finally:
        os.close(descriptor)
    (tmp_path / "other").mkdir()
    with pytest.raises(SettingsError, match="already exists"):
        export_hats(directory, tmp_path / "other")
    note = catalog / "versions" / "current" / "fink-dask.json"
    note.write_text(note.read_text().replace("magpsf", "magqsf"))
    with pytest.raises(LedgerError, match="checksum"):
        export_hats(directory, catalog)


def test_alerts_of_another_survey_do_not_get_into_a_catalog(tmp_path: Path) -> None:
    for kind in (AlertKind.ZTF_LIGHT, AlertKind.LSST_LIGHT):
        add_night(tmp_path / kind, avro_schema(kind), list(made_up_alerts(kind, 5)))
    export_hats(tmp_path / AlertKind.ZTF_LIGHT, tmp_path / "catalog")
    before = content_of(tmp_path / "catalog")
    with pytest.raises(LedgerError, match="another survey"):
        export_hats(tmp_path / AlertKind.LSST_LIGHT, tmp_path / "catalog")
    assert content_of(tmp_path / "catalog").keys() == before.keys()


def test_a_column_of_a_later_night_is_named_that_the_catalog_was_begun_without(tmp_path: Path) -> None:
    schema = avro_schema(AlertKind.ZTF_LIGHT)
    alerts = list(made_up_alerts(AlertKind.ZTF_LIGHT, 20))
    add_night(tmp_path / "season" / "ftransfer_0", schema, alerts[:10])
    export_hats(tmp_path / "season", tmp_path / "catalog")
    later = {**schema, "fields": [*schema["fields"], {"name": "novelty", "type": ["null", "double"], "default": None}]}
    add_night(tmp_path / "season" / "ftransfer_1", later, alerts[10:])
    said = export_hats(tmp_path / "season", tmp_path / "catalog")
    assert (said.alerts, said.left_out) == (20, ("novelty",))
    assert isinstance(next(iter(content_of(tmp_path / "catalog").values())), pa.Table)


def test_a_column_with_a_dot_in_its_name_is_none_of_a_struct(tmp_path: Path) -> None:
    schema = avro_schema(AlertKind.ZTF_FULL)
    alerts = list(made_up_alerts(AlertKind.ZTF_FULL, 20))
    dotted = {**schema, "fields": [*schema["fields"], {"name": "my.note", "type": "double"}]}
    add_night(tmp_path / "alerts", dotted, [alert | {"my.note": n / 2} for n, alert in enumerate(alerts)])
    export_hats(tmp_path / "alerts", tmp_path / "catalog", ["my.note"])
    tables = [table for (kind, _), table in content_of(tmp_path / "catalog").items() if not kind]
    notes = [note for table in tables for each in table["lightcurve"].to_pylist() for note in each["my_note"]]
    assert sorted(notes) == [n / 2 for n in range(20)], "it was looked for in a struct, and all of it is null"
