"""A new file is hashed as it was written, brought to the disk, and let go."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fink_dask.store import newfile
from fink_dask.store.newfile import NewFile
from tests.harness.descriptors import open_below


def test_what_goes_bad_on_the_way_to_the_disk_is_not_what_is_hashed(tmp_path: Path) -> None:
    with NewFile(tmp_path / "file") as file:
        for part in (b"al", memoryview(b"erts")):
            assert file.write(part) == len(part)
        assert (file.size, file.tell()) == (6, 6)
        (tmp_path / "file").write_bytes(b"alerTs")
        assert file.sha256() == hashlib.sha256(b"alerts").hexdigest()


def test_what_is_put_in_the_place_of_other_bytes_is_hashed_with_all_that_stays(tmp_path: Path) -> None:
    with NewFile(tmp_path / "file") as file:
        file.write(b"a header with room: ......; and alerts")
        file.rewrite(20, b"bitmap")
        whole = b"a header with room: bitmap; and alerts"
        for _ in range(2):
            assert file.sha256() == hashlib.sha256(whole).hexdigest()
        assert file.size == len(whole)
    assert (tmp_path / "file").read_bytes() == whole


def test_a_file_that_was_given_up_is_let_go_and_takes_what_arrow_still_has_of_it(tmp_path: Path) -> None:
    file = NewFile(tmp_path / "file")
    file.write(b"alerts")
    for _ in range(2):
        file.close()
    assert not open_below(tmp_path)
    assert file.closed
    assert file.write(b"a page") == 6
    assert (tmp_path / "file").read_bytes() == b"alerts"


@pytest.mark.parametrize("has_it", [True, False])
def test_on_macos_bytes_go_beyond_the_cache_of_the_drive_where_the_volume_knows_how(
    has_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def control(descriptor: int, command: int) -> None:
        called.append("full")
        if not has_it:  # as on SMB and exFAT
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    def sync(descriptor: int) -> None:
        called.append("fsync")

    monkeypatch.setattr(newfile.sys, "platform", "darwin")
    monkeypatch.setattr(newfile, "fcntl", SimpleNamespace(fcntl=control, F_FULLFSYNC=51), raising=False)
    monkeypatch.setattr(os, "fsync", sync)
    with NewFile(tmp_path / "file") as file:
        file.sync()
    assert called == (["full"] if has_it else ["full", "fsync"])
