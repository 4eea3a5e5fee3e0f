"""What a file system is asked for is done, or what is wrong with it is said."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fink_dask.errors import StorageError
from fink_dask.store.local import LOCAL, has_size, is_finder_file


def fail(number: int) -> Callable[..., None]:
    """Make a function of the operating system that fails."""

    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing


def test_a_file_system_on_which_a_commit_would_work_is_taken_and_nothing_of_the_trial_is_left(tmp_path: Path) -> None:
    LOCAL.try_commit(tmp_path / "trial")
    assert list(tmp_path.iterdir()) == []


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        raise FileExistsError(errno.EEXIST, "File exists")
    shutil.copy(source, target)


#: What a file system may make of a link: a copy, a symbolic link, nothing, or something that replaces.
LINKS: tuple[Callable[[Path, Path], object], ...] = (
    _copy,
    os.symlink,
    lambda source, target: target.write_bytes(b""),
    shutil.copy,
    fail(errno.EXDEV),
)


@pytest.mark.parametrize("link", LINKS)
def test_a_file_system_that_makes_something_else_of_a_link_is_refused_and_nothing_of_the_trial_is_left(
    link: Callable[[Path, Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="hard links"):
        LOCAL.try_commit(tmp_path / "trial")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_moves_nothing_from_one_directory_to_another_is_found_out_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "rename", fail(errno.EXDEV))
    with pytest.raises(OSError, match="cross-device"):
        LOCAL.try_commit(tmp_path / "trial")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_fails_for_another_reason_is_no_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LOCAL.write_new(tmp_path / "source", b"")
    monkeypatch.setattr(os, "link", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        LOCAL.link(tmp_path / "source", tmp_path / "target")


@pytest.mark.parametrize("put", [LOCAL.put_new, LOCAL.replace])
def test_what_keeps_a_file_from_being_written_is_what_is_said(
    put: Callable[[Path, bytes], object], tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
            put(tmp_path / "file", b"")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


def test_a_directory_that_several_make_at_once_is_there_for_each_of_them(tmp_path: Path) -> None:
    at_once = 4
    barrier = Barrier(at_once)

    def make(number: int) -> None:
        for attempt in range(8):
            barrier.wait(120)
            try:
                LOCAL.make_directory(tmp_path / f"{attempt}" / "a" / "b" / "c")
            except OSError:
                barrier.abort()  # nobody waits for this one any more
                raise

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(make, range(at_once)))
    assert all((tmp_path / f"{attempt}" / "a" / "b" / "c").is_dir() for attempt in range(8))


def test_only_what_was_made_is_said_to_be_new(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert LOCAL.make_directory(tmp_path / "a" / "b" / "c") == [tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert LOCAL.make_directory(tmp_path / "a" / "b") == []


def test_what_is_on_another_disk_is_told_from_what_is_on_this_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert LOCAL.are_together(tmp_path, tmp_path / "a")
    assert not LOCAL.are_together(tmp_path, Path("/proc"))


def test_a_directory_that_is_a_link_is_gone_into_where_it_is_the_datasets_and_listed_otherwise(tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    for directory in (elsewhere, here / "own"):
        directory.mkdir(parents=True)
        (directory / "file").touch()
    (here / "link").symlink_to(elsewhere)
    (here / ".DS_Store").touch()
    assert list(LOCAL.files_below(here)) == [here / "link", here / "own" / "file"]
    assert list(LOCAL.files_below(here, {here / "link"})) == [here / "link" / "file", here / "own" / "file"]
    assert list(LOCAL.files_below(tmp_path / "nowhere")) == []


@pytest.mark.parametrize(
    ("name", "is_one"), [(".DS_Store", True), ("._alerts", True), ("DS_Store", False), ("_a", False)]
)
def test_only_files_of_macos_are_nobodys(name: str, is_one: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / name).symlink_to(tmp_path / name)
    (tmp_path / "folders" / name).mkdir(parents=True)
    assert is_finder_file(tmp_path / name) == is_one
    assert not is_finder_file(tmp_path / "links" / name)
    assert not is_finder_file(tmp_path / "folders" / name)


def test_a_directory_in_the_place_of_a_file_is_not_that_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "directory").mkdir()
    assert has_size(tmp_path, "file", 5)
    assert not has_size(tmp_path, "file", 6)
    assert not has_size(tmp_path, "directory", (tmp_path / "directory").stat().st_size)
    assert not has_size(tmp_path, "nowhere", 5)
    assert not has_size(tmp_path, "file/below", 5)


def test_a_lease_is_as_old_as_the_clock_of_the_file_system_says(tmp_path: Path) -> None:
    for name in ("lease", "aside"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    heartbeat = LOCAL.heartbeat(tmp_path / "lease")
    assert LOCAL.last_heartbeat(tmp_path / "lease") == 1000
    heartbeat.renew()
    renewed, now = LOCAL.last_heartbeat(tmp_path / "lease"), LOCAL.time(tmp_path / "aside")
    assert renewed is not None
    assert now > 1_700_000_000 < renewed
    heartbeat.end()


def test_a_disk_that_does_not_say_what_is_free_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.statvfs(tmp_path)
    free = LOCAL.free_bytes(tmp_path / "not" / "there" / "yet")
    assert free is not None
    assert abs(free - here.f_bavail * here.f_frsize) < 2**32
    assert LOCAL.free_bytes(Path("/proc")) == 0, "it is asked what is free elsewhere"
    monkeypatch.setattr(shutil, "disk_usage", fail(errno.ENOSYS))
    assert LOCAL.free_bytes(tmp_path) is None


@pytest.mark.parametrize("path", ["night=a/class=SN/file", "night=a/file", "file"])
def test_directories_that_differ_in_case_are_two_on_a_file_system_that_knows_the_difference(
    path: str, tmp_path: Path
) -> None:
    for each in (path, path.swapcase()):
        LOCAL.make_directory_of(tmp_path, each)
        LOCAL.make_directory_of(tmp_path, each)
        assert (tmp_path / each).parent.is_dir()


def test_what_is_sent_to_a_directory_that_is_not_there_yet_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"alerts")
    LOCAL.send([tmp_path / "file"], tmp_path / "new" / "directory")
    assert (tmp_path / "new" / "directory" / "file").read_bytes() == b"alerts"
