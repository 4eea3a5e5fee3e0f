"""A file system and an object store keep to the same protocol, on which the ledger stands."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fink_dask.store.local import LOCAL
from fink_dask.store.location import locate, store_of
from fink_dask.store.newfile import NewFile
from tests.harness.oracle import wait_for


@pytest.fixture(params=["directory", "store_url", pytest.param("azure_url", marks=pytest.mark.stores)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "alerts" if request.param == "directory" else locate(request.getfixturevalue(request.param))


def test_of_several_that_put_or_link_a_new_file_one_wins_and_it_is_never_replaced(place: Path) -> None:
    store = store_of(place)
    store.make_directory(place)
    contents = [f"put-{number}".encode() for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        won = list(pool.map(lambda content: store.put_new(place / "put", content), contents))
    assert sum(won) == 1
    assert (place / "put").read_bytes() == contents[won.index(True)]
    for number in range(2):
        store.write_new(place / f"mine-{number}", f"link-{number}".encode())
    assert [store.link(place / f"mine-{number}", place / "linked") for number in range(2)] == [True, False]
    assert (place / "linked").read_bytes() == b"link-0"
    assert not store.link(place / "put", place / "linked")
    if not store.renames:  # whoever has put it for this attempt has removed what it had staged
        assert not store.link(place / "mine-2", place / "linked-too")
    store.replace(place / "linked", b"else")
    store.note(place / "note", b"said")
    assert ((place / "linked").read_bytes(), (place / "note").read_bytes()) == (b"else", b"said")
    assert sorted(store.names(place)) == ["linked", "mine-0", "mine-1", "note", "put"], "something is left aside"


def test_files_are_moved_listed_and_removed_by_whoever_comes_as_often_as_he_likes(place: Path) -> None:
    store = store_of(place)
    for name in ("a/1", "a/b/2"):
        store.make_directory_of(place, name)
        store.replace(place / name, name.encode())
    store.make_directory(place / "c")
    store.share(place / "a/1", place / "c/3")
    store.move(place / "c/3", place / "c/4")
    assert list(store.files_below(place)) in (
        [place / "a/1", place / "a/b/2", place / "c/4"],
        # What is moved in an object store is removed together with all that was staged with it.
        [place / "a/1", place / "a/b/2", place / "c/3", place / "c/4"],
    )
    assert store.directories(place) == [place / "a", place / "c"]
    for _ in range(2):
        store.move_tree(place / "a", place / "moved")
        assert (place / "moved/b/2").read_bytes() == b"a/b/2"
    there = store.size_finder(place)
    assert there(place, "moved/1", 3)
    assert not there(place, "moved/1", 4)
    assert not there(place, "a/1", 3)
    read = store.glance(place / "moved")
    assert read("1") == (place / "moved/1").read_bytes()
    with pytest.raises(FileNotFoundError):
        read("2")
    with pytest.raises(FileNotFoundError):
        store.move(place / "a/1", place / "moved/1")
    for _ in range(2):
        store.remove_tree(place / "moved")
    assert not (place / "moved").exists()
    assert not (place / "a").exists()


def test_a_room_is_made_in_what_was_admitted_and_what_is_written_there_is_brought(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = store_of(place)
    with pytest.raises(FileNotFoundError):
        store.create_staging(place / "plan" / "attempt")
    store.create_plan_directory(place / "plan")
    assert store.plan_directory(place / "plan").exists()
    room = store.create_staging(place / "plan" / "attempt")
    assert store.has_staging(place / "plan" / "attempt")
    with NewFile(room / "file") as file:
        file.write(b"alerts")
        store.persist([file], place / "plan" / "attempt")
    assert (room / "file").exists() is (room == place / "plan" / "attempt"), "a file fills the disk that is elsewhere"
    (tmp_path / "sent").write_bytes(b"as it is")
    store.send([tmp_path / "sent"], place / "plan" / "attempt")
    assert {name: (place / "plan/attempt" / name).read_bytes() for name in ("file", "sent")} == {
        "file": b"alerts",
        "sent": b"as it is",
    }
    store.remove_tree(place / "plan")
    assert not store.has_staging(place / "plan" / "attempt")


def test_a_lease_beats_until_it_is_given_back(place: Path) -> None:
    store = store_of(place)
    store.make_directory(place)
    assert store.last_heartbeat(place / "lease") is None
    store.write_new(place / "lease", b"mine")
    heartbeat = store.heartbeat(place / "lease")
    store.write_new(place / "aside", b"")
    taken, now = store.last_heartbeat(place / "lease") or 0.0, store.time(place / "aside")
    assert abs(now - taken) < 60
    # A store tells the time in seconds.
    wait_for(lambda: store.time(place / "aside") > taken, "the clock to move")

    def is_renewed() -> bool:
        heartbeat.renew()
        renewed = store.last_heartbeat(place / "lease")
        return renewed is not None and renewed > taken

    wait_for(is_renewed, "the lease to be renewed")
    assert (place / "lease").read_bytes() == b"mine"
    heartbeat.end()
    ended = store.last_heartbeat(place / "lease")
    assert ended is None or now - ended > 1e6


@pytest.mark.parametrize("items", [0, 1, 100])
def test_a_function_is_called_for_each_and_what_it_raises_is_raised(place: Path, items: int) -> None:
    store = store_of(place)
    assert list(store.for_each(lambda item: item + 1, range(items))) == [(item, item + 1) for item in range(items)]

    def fail(item: int) -> Any:
        raise ValueError(str(item))

    if items:
        with pytest.raises(ValueError, match="0"):
            list(store.for_each(fail, range(items)))


def test_two_directories_that_had_one_name_have_two_numbers(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    before = LOCAL.number(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "other")
    (tmp_path / "one").mkdir()
    assert LOCAL.number(tmp_path / "other") == before != LOCAL.number(tmp_path / "one")


@pytest.mark.parametrize("make", [lambda path: path.parent, lambda path: path / "x" / "y"])
def test_free_space_is_told_where_it_is_known(place: Path, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert (store_of(place).free_bytes(make(place)) is None) is (tmp_path not in place.parents)
