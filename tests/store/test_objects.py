"""Paths on an object store: their names, what they refuse, and what is said of a store that refuses."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

import pytest

import fink_dask
from fink_dask.api.settings import kafka_of
from fink_dask.errors import FinkDaskError, LedgerError, SettingsError, StorageError
from fink_dask.ledger.lease import hold_lease, is_held
from fink_dask.ledger.ledger import Ledger
from fink_dask.settings import RECONNECT_TIMEOUT_S, KafkaSettings, TransferSettings
from fink_dask.store import bucket as bucket_module
from fink_dask.store.bucket import open_bucket
from fink_dask.store.location import locate
from fink_dask.store.objects import ObjectPath
from tests.harness.crash import kill_self, run
from tests.harness.ledgers import make_ledger
from tests.harness.object_store import BUCKET, KEY_ID, SECRET, ObjectStore, OpenGate


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://bucket/alerts", "bucket", "alerts"),
        ("s3://bucket/a//b/./c/", "bucket", "a/b/c"),
        ("s3://my.bucket/year=2026/x=%41 b?#", "my.bucket", "year=2026/x=%41 b?#"),
        (Path("s3://bucket/alerts"), "bucket", "alerts"),
        ("S3://bucket/ünï", "bucket", "ünï"),
    ],
)
def test_a_url_is_a_place_and_survives_a_journey(url: Any, bucket: str, key: str) -> None:
    path = locate(url)
    assert isinstance(path, ObjectPath)
    assert (path.parts[1], path.key) == (f"s3:{bucket}", key)
    assert str(path) == f"s3://{bucket}/{key}"
    again = pickle.loads(pickle.dumps(path))
    assert again == path
    assert type(again) is ObjectPath
    assert path.with_name("alerts.fink").parent == path.parent
    assert str(path / "b" / "c.json").endswith(f"{key}/b/c.json")
    assert next(iter((path / "x").parents)) == path
    assert (path / "b" / "c.json").relative_to(path).as_posix() == "b/c.json"
    assert all(parent.key for parent in (path / "x" / "y").parents), "a bucket is no place for a dataset"


STRANGE = "s3:// s3://bucket s3://bucket/ s3://b/x s3://buck\tet/x s3://bucket/../x s3://bucket/a\nb s3:///x s3://-b-/x"
OTHERS = "gs://bucket az:///x file:///tmp/x https://bucket/x"


@pytest.mark.parametrize("url", [*STRANGE.split(" "), *OTHERS.split(" ")])
def test_what_is_no_place_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        locate(url)
    assert "\n" not in str(caught.value)


def test_nothing_reaches_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ObjectPath.parse("s3://bucket/alerts")
    for touch in (os.mkdir, os.listdir, os.stat, lambda found: Path.open(found, "wb")):
        with pytest.raises(TypeError, match="s3://bucket/alerts"):
            touch(path)
    inherited = set(dir(Path)) - set(dir(PurePath)) - vars(ObjectPath).keys()
    assert {"mkdir", "rename", "touch"} <= inherited
    assert [name for name in inherited if hasattr(path, name)] == []
    with pytest.raises(SettingsError, match="slash"):
        TransferSettings("topic", Path("s3://bucket/alerts"), KafkaSettings("localhost:9092"))
    assert TransferSettings("topic", path, KafkaSettings("localhost:9092")).outdir is path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a=%2F%25 b", "ünï", "a+b&c=d;e", "x" * 200, "~!@$(')*,", "a=b=c"])
def test_a_name_arrives_as_it_is(store_url: str, name: str) -> None:
    path = locate(store_url) / name / f"{name}.parquet"
    path.write_bytes(b"x")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert list(locate(store_url).rglob("*.parquet")) == [path]
    copy = path.with_name("copy")
    path.copy_to(copy)  # type: ignore[attr-defined]
    assert copy.read_bytes() == b"x"


def test_a_large_object_is_read_in_parts(store_url: str, tmp_path: Path) -> None:
    content = os.urandom(40 * 2**20 + 17)  # in several parts, too, when it is sent
    (tmp_path / "large").write_bytes(content)
    path = locate(store_url) / "large"
    path.parent.upload([tmp_path / "large"])  # type: ignore[attr-defined]
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(content).digest()
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]
    assert path.stat().st_size == len(content)


def test_of_many_that_create_one_does(store_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            path = ObjectPath.parse(f"{store_url}/{number}")
            assert sum(pool.map(path.create, [b"%d" % each for each in range(8)])) == 1


@pytest.mark.parametrize("fate", ["lost", "reset", "500", "503"])
def test_a_create_and_an_exchange_that_go_wrong_once_come_to_the_truth(
    object_store: ObjectStore, store_url: str, fate: Any
) -> None:
    path, seen = ObjectPath.parse(f"{store_url}/one"), []

    def once(method: str, url: str, _: Mapping[str, str]) -> Any:
        if method == "PUT":
            seen.append(url)
        return fate if method == "PUT" and len(seen) == 1 else "pass"

    object_store.wire.rule = once
    assert path.create(b"mine")
    assert not path.create(b"other")
    assert not path.exchange(b"other", b"new")
    seen.clear()
    path.exchange(b"mine", b"new")  # whether it is told so or not
    assert path.read_bytes() in {b"mine", b"new"}
    assert (path.read_bytes() == b"new") or fate == "reset"


def test_a_store_that_lets_several_puts_win_is_refused(
    object_store: ObjectStore, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store.wire, "gate", OpenGate())

    def make_often() -> None:
        for _ in range(20):
            open_bucket("s3", BUCKET).heeds_conditions = False
            _lease(store_url)

    with pytest.raises(StorageError, match="If-None-Match"):
        make_often()
    assert not [name for name in object_store.files(store_url.split("/")[3]) if "probe" in name]


def _lease(url: str) -> None:
    with hold_lease(Ledger(locate(url))):
        pass


def _environment(**changes: str) -> Callable[[pytest.MonkeyPatch], None]:
    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in changes.items():
            if value:
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name)

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_environment(AWS_SECRET_ACCESS_KEY="wrong-secret"), "403"),
        (
            _environment(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""),
            "credentials",
        ),
        (_environment(AWS_SECRET_ACCESS_KEY=""), "Partial credentials found"),
        (_environment(AWS_PROFILE="nobody"), r"\(nobody\)"),
        (_environment(AWS_ENDPOINT_URL="http://127.0.0.1:9"), "http://127.0.0.1:9"),
        (_environment(AWS_ENDPOINT_URL="nonsense"), "Invalid endpoint: nonsense"),
        (_environment(AWS_CONFIG_FILE=__file__), "Unable to parse config file"),
    ],
)
@pytest.mark.parametrize("command", ["read", "lease"])
def test_a_store_that_can_not_be_used_is_said_in_one_line(
    store_url: str, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], words: str, command: str
) -> None:
    change(monkeypatch)
    monkeypatch.setattr(bucket_module, "_FIRST_PATIENCE_S", 0.3)
    with pytest.raises(FinkDaskError, match=words) as caught:
        fink_dask.open_dataset(store_url) if command == "read" else _lease(store_url)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


def test_a_store_that_has_never_answered_is_given_up_soon(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(AWS_ENDPOINT_URL="http://127.0.0.1:9")(monkeypatch)
    asked: list[float] = []
    make = bucket_module.Bucket._make
    monkeypatch.setattr(bucket_module, "_FIRST_PATIENCE_S", 0.3)

    def noted(bucket: bucket_module.Bucket, patience_s: float, *more: float) -> Any:
        asked.append(patience_s)
        return make(bucket, patience_s, *more)

    monkeypatch.setattr(bucket_module.Bucket, "_make", noted)
    for _ in range(2):
        with pytest.raises(StorageError, match="answer"):
            fink_dask.open_dataset(store_url)
    assert asked == [0.3]


def test_a_store_is_waited_for_as_long_as_kafka_is_and_as_long_as_the_user_says(
    kafka: Any, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bucket_module.Bucket.patience_s == RECONNECT_TIMEOUT_S
    monkeypatch.setattr(bucket_module.Bucket, "patience_s", RECONNECT_TIMEOUT_S)  # put back afterwards
    asked: list[float] = []
    make = bucket_module.Bucket._make

    def noted(bucket: bucket_module.Bucket, patience_s: float, *more: float) -> Any:
        asked.append(patience_s)
        return make(bucket, patience_s, *more)

    monkeypatch.setattr(bucket_module.Bucket, "_make", noted)
    bucket_module.open_bucket.cache_clear()
    place = locate(store_url)
    assert not place.exists()
    assert not place.exists()
    kafka_of("ftransfer_ztf_2026-02-24_1", None, kafka.bootstrap_servers, "transfer", reconnect_timeout="20m")
    assert not place.exists()
    assert [seconds for seconds in asked if seconds > 60] == [RECONNECT_TIMEOUT_S, 1200.0]


def test_credentials_that_were_mended_are_found_by_the_same_process(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _environment(AWS_SECRET_ACCESS_KEY="wrong-secret")(monkeypatch)
    with pytest.raises(StorageError, match="credentials"):
        _lease(store_url)
    _environment(AWS_SECRET_ACCESS_KEY=SECRET)(monkeypatch)
    _lease(store_url)


def test_a_bucket_that_is_not_there_is_named(object_store: ObjectStore) -> None:
    with pytest.raises(StorageError, match=r" bucket\b.*no-such-bucket .*http"):
        _lease("s3://no-such-bucket/alerts")
    with pytest.raises(StorageError, match=r" bucket\b.*no-such-bucket .*http"):
        fink_dask.open_dataset("s3://no-such-bucket/alerts")


def test_credentials_and_endpoint_may_be_in_the_files_of_aws(
    object_store: ObjectStore, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(f"[night]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n")
    (tmp_path / "config").write_text(f"[profile night]\nregion=eu-west-3\nendpoint_url={object_store.endpoint}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "night")
    path = locate(store_url)
    path.write_bytes(b"x")
    assert path.read_bytes() == b"x"
    assert open_bucket("s3", BUCKET).service._region == "eu-west-3"


@pytest.mark.parametrize("missing", ["obstore", "botocore"])
def test_without_the_extra_one_line_says_how_to_install_it(missing: str, tmp_path: Path) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('no', name={missing!r})\n")
    ended = subprocess.run(
        [sys.executable, "-m", "fink_dask", "status", "s3://bucket/alerts"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch(rf"fink-dask: error: .*\b{missing}\b.* pip install 'fink-dask\[s3\]'\n", ended.stderr)


def test_a_lease_is_held_once_released_and_free_after_a_death(object_store: ObjectStore, store_url: str) -> None:
    ledger = make_ledger(locate(store_url))
    with hold_lease(ledger) as lease:
        assert is_held(ledger)
        with pytest.raises(LedgerError, match="running"), hold_lease(ledger):
            pass
        lease.check()
    assert not is_held(ledger)
    assert list(ledger.path.rglob("*")) == [], "a ledger that came to nothing left something behind"
    assert run(_hold_and_die, object_store.environment, ledger) != 0
    assert list(ledger.path.glob("lease-*"))
    with hold_lease(ledger):  # the process is gone, on this very host: at once
        pass


def test_a_job_that_stood_still_too_long_is_told(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(locate(store_url))
    monkeypatch.setattr("fink_dask.store.remote.RemoteStore.look_s", 0.0)
    with hold_lease(ledger) as first:
        monkeypatch.setattr("fink_dask.ledger.lease.DEAD_AFTER_S", -1.0)
        with hold_lease(ledger) as second:
            with pytest.raises(LedgerError, match=f"process {os.getpid()}"):
                first.check()
            first.release()
            second.check()


def _hold_and_die(environment: Mapping[str, str], ledger: Ledger) -> None:
    os.environ.update(environment)
    with hold_lease(ledger):
        kill_self()
