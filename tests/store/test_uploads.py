"""What is sent to a store arrives over a slow line, goes on after a short cut, and says so after a long one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fink_dask.errors import InterruptedTransferError, StorageError
from fink_dask.store import bucket as bucket_module
from fink_dask.store import uploads
from fink_dask.store.bucket import open_bucket
from fink_dask.store.location import locate
from fink_dask.store.uploads import PART_BYTES, Lanes
from tests.harness.kafka_settings import free_ports
from tests.harness.link import Line, Link
from tests.harness.object_store import BUCKET, ObjectStore

#: Two parts at once take two seconds.
LINE = Line(mbit=40, round_trip_s=0.02)


@pytest.fixture
def link(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """Yield a slow line to the store, of which is soon asked whether it is still whole."""
    (port,) = free_ports(1)
    monkeypatch.setattr(uploads, "_ASK_S", 0.3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with Link({port: object_store.wire.port}, LINE) as link:
        yield link


def _files(directory: Path, *sizes: int) -> list[Path]:
    files = [directory / f"{number}" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(os.urandom(size))
    return files


def _assert_there(url: str, files: list[Path]) -> None:
    assert [(locate(url) / file.name).read_bytes() for file in files] == [file.read_bytes() for file in files]


@pytest.mark.stores
def test_files_arrive_over_a_line_on_which_all_of_them_take_longer_than_a_request_may(
    link: Link, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_SENDING_S", 4.2)
    files = _files(tmp_path, 6 * PART_BYTES, 100_000, 100_000, 0)
    locate(store_url).upload(files)  # type: ignore[attr-defined]
    # All parts at once would take 6 seconds each: what is sent by then is lost, and sent again.
    assert link.moved.up < 1.5 * sum(file.stat().st_size for file in files)
    _assert_there(store_url, files)


def test_an_object_is_read_over_a_line_on_which_it_takes_longer_than_silence_may(
    link: Link, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_SILENCE_S", 1.0)
    link.set(Line())
    files = _files(tmp_path, 3 * PART_BYTES)
    locate(store_url).upload(files)  # type: ignore[attr-defined]
    link.set(LINE)
    _assert_there(store_url, files)


@pytest.mark.links
def test_a_line_that_is_cut_for_a_moment_costs_nothing_but_time(
    link: Link, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_SILENCE_S", 1.0)
    files = _files(tmp_path, 3 * PART_BYTES)
    with _in_a_moment(link.cut), _in_a_moment(link.heal, after_s=2.0):
        locate(store_url).upload(files)  # type: ignore[attr-defined]
    _assert_there(store_url, files)


def test_a_line_that_stays_cut_ends_an_upload_in_one_line_and_the_next_one_arrives(
    link: Link, object_store: ObjectStore, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_SILENCE_S", 0.5)
    monkeypatch.setattr(bucket_module.Bucket, "patience_s", 1.0)
    files = _files(tmp_path, 3 * PART_BYTES)
    path = locate(store_url)
    with _in_a_moment(link.cut), pytest.raises(StorageError, match=r"15\.7 MB .*answer") as caught:
        path.upload(files)  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)
    link.set(Line())
    link.heal()
    path.upload(files)  # type: ignore[attr-defined]
    _assert_there(store_url, files)
    path.remove_unfinished()  # type: ignore[attr-defined]
    assert object_store.uploads(path.key) == []  # type: ignore[attr-defined]


def test_who_stops_an_upload_does_not_wait_for_it_and_leaves_nothing_of_it(
    object_store: ObjectStore, store_url: str, tmp_path: Path
) -> None:
    under_way, is_over = threading.Event(), threading.Event()

    def hold(method: str, path: str, _: Mapping[str, str]) -> Any:
        if "partNumber=" in path:
            under_way.set()
            is_over.wait(60)
            return "reset"
        return "pass"

    object_store.wire.rule = hold
    path = locate(store_url)
    try:
        with pytest.raises(InterruptedTransferError):
            path.upload(_files(tmp_path, 4 * PART_BYTES), under_way.is_set)  # type: ignore[attr-defined]
        assert not is_over.is_set()
        assert object_store.uploads(path.key) == []  # type: ignore[attr-defined]
    finally:
        is_over.set()


def test_only_what_is_below_a_name_is_tidied_up(object_store: ObjectStore, store_url: str) -> None:
    client, path = open_bucket("s3", BUCKET).service._client, locate(store_url)
    keys = [f"{path.key}{rest}" for rest in ("/staging/a", "/staging/b/c", "-other/a", "/stagings/a")]  # type: ignore[attr-defined]
    for key in keys:
        client.create_multipart_upload(Bucket=BUCKET, Key=key)
    (path / "staging").remove_unfinished()  # type: ignore[attr-defined]
    assert object_store.uploads(path.key) == sorted(keys[2:])  # type: ignore[attr-defined]


def test_a_store_that_can_not_tell_what_is_unfinished_is_used_all_the_same(
    object_store: ObjectStore, store_url: str
) -> None:
    object_store.wire.rule = lambda _, path, __: "500" if "uploads" in path else "pass"
    (locate(store_url) / "staging").remove_unfinished()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("each_s", "allowed"), [((1.0,) * 9, 8), ((60.0,), 1), ((60.0, 60.0), 1), ((10.0,) * 9, 2), ((1.0, 1.0, 60.0), 2)]
)
def test_more_is_sent_at_once_where_parts_take_little_time_and_less_where_they_take_long(
    each_s: tuple[float, ...], allowed: int
) -> None:
    lanes = Lanes()
    for seconds in each_s:
        lanes.learn(4 * PART_BYTES, 4, 2, 2 * seconds)
    assert lanes.allowed == allowed


def test_a_small_file_proves_no_fast_line() -> None:
    lanes = Lanes()
    lanes.learn(1000, 1, 1, 1.5)
    assert lanes.allowed == 2


class _in_a_moment:  # noqa: N801 - reads like a function
    """Do something a moment after a block has begun."""

    def __init__(self, what: Any, after_s: float = 0.5) -> None:
        self._timer = threading.Timer(after_s, what)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.join()
