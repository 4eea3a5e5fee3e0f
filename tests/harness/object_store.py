"""A real S3 endpoint on loopback: S3Proxy over a local folder, behind a wire on which things go wrong.

S3Proxy answers 412 where an object is there already, but of puts that come at once it may let several win, which a
store must not; and while an object is replaced, a list may lack it. The wire lets such puts through one at a time and
alone, as a store that is fit for use behaves. Nor may a store show what it had not finished when it was killed: S3Proxy
writes an object under a temporary name in the same folder, and lists what is left of it, so the harness removes that.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import S3FileSystem

from fink_dask.ledger.outdir import find_ledger
from fink_dask.store.location import locate
from tests.harness.kafka import QUICKLY
from tests.harness.kafka_install import HarnessError, cache_folder, ensure_tools, find_java, locked, run_tool
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.oracle import Oracle, wait_for

S3PROXY_VERSION = "3.0.0"
#: Of the jar; Maven compares with the checksum that the same server gives.
S3PROXY_SHA256 = "f5931bd2a7706e75bd15713224c98ddda22ac022a48d4f9937ce884acef9ce25"
_ARTIFACT = f"org.gaul:s3proxy:{S3PROXY_VERSION}:jar:jar-with-dependencies"
_START_S = 180
BUCKET = "alerts-bucket"
#: Who the tests are to the store; the second one must appear nowhere.
KEY_ID, SECRET = "harness-identity", "harness-secret-0123456789"
#: How the name ends that S3Proxy gives an object until it is whole; no name of ours does.
_UNFINISHED = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

#: The name of what S3Proxy keeps of an upload in parts until it is completed.
_IN_PARTS = re.compile(r"\.mpus-[0-9a-f-]{36}-(?P<key>.*)-stub")

#: What becomes of a request: it passes; is answered with a status; is not passed on, or is, and nobody hears of it.
Fate = Literal["pass", "500", "503", "reset", "lost", "slow"]
#: Decides on a request by its method, its path with the query, and its headers.
Rule = Callable[[str, str, Mapping[str, str]], Fate]


def ensure_s3proxy_jar() -> Path:
    """Return S3Proxy's jar, downloaded first where it is not there.

    Raises HarnessError: java or Maven is missing and can't be installed, or the download failed; one line.
    """
    room = cache_folder() / f"s3proxy-{S3PROXY_VERSION}"
    jar = room / "s3proxy.jar"
    room.mkdir(parents=True, exist_ok=True)
    with locked(room / "lock"):  # a second process waits, and then finds the work done
        done = jar.is_file()
        ensure_tools(maven=not done)
        if not done:
            with tempfile.TemporaryDirectory(dir=room, prefix="download-") as folder:
                copy = ["dependency:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}"]
                run_tool(["mvn", "-q", "-B", *copy], f"Maven's download of S3Proxy {S3PROXY_VERSION}")
                (found,) = Path(folder).glob("*.jar")
                if hashlib.sha256(found.read_bytes()).hexdigest() != S3PROXY_SHA256:
                    raise HarnessError(f"what was downloaded as S3Proxy {S3PROXY_VERSION} is something else")
                found.rename(jar)
    return jar


class S3Proxy:
    """S3Proxy over a folder; started and killed as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        # Where it keeps everything.
        self.folder = folder
        # Where it listens, once it is started.
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "data" / BUCKET).mkdir(parents=True)

    def __getstate__(self) -> dict[str, Any]:
        """Tell another process where it is; only the one that started it ends it."""
        return self.__dict__ | {"_process": None}

    def start(self) -> None:
        """Start S3Proxy, and return when it answers.

        Raises HarnessError if it does not; with its last words.
        """
        (self.port,) = free_ports(1)
        settings = {
            "s3proxy.endpoint": f"http://{HOST}:{self.port}",
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": KEY_ID,
            "s3proxy.credential": SECRET,
            "s3proxy.ignore-unknown-headers": "true",
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": str(self.folder / "data"),
        }
        properties = self.folder / "s3proxy.conf"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        java = find_java()
        assert java is not None
        log = self.folder / "s3proxy.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [java, "-Xmx256m", *QUICKLY, "-jar", str(ensure_s3proxy_jar()), "--properties", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise HarnessError(f"S3Proxy does not start: {log.read_text()[-400:]}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Process id of the S3Proxy that runs."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End S3Proxy at once; what it has said stays said."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            for path in (self.folder / "data").rglob("*"):
                if _UNFINISHED.search(path.name):
                    path.unlink()

    def discard(self) -> None:
        """End it, and remove what was kept."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class ObjectStore:
    """A store as one process knows it: an S3Proxy that others may use too, and a wire to it of its own."""

    def __init__(self, proxy: S3Proxy, host: str = HOST) -> None:
        self.proxy = proxy
        self.folder = proxy.folder
        self.wire = FaultyWire(target=proxy.port, host=host)

    @property
    def endpoint(self) -> str:
        """Where clients connect to: the wire."""
        return f"http://{self.wire.host}:{self.wire.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What tells a client where the store is, and who it is; and that there is nothing to ask on this machine."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
        }

    def files(self, prefix: str) -> list[str]:
        """List the names of all objects below a prefix, as the folder has them."""
        root = self.folder / "data" / BUCKET
        return sorted(path.relative_to(root).as_posix() for path in (root / prefix).rglob("*") if path.is_file())

    def uploads(self, prefix: str) -> list[str]:
        """List the names below a prefix with begun and not completed uploads in parts, as the folder has them."""
        root = self.folder / "data" / BUCKET
        # While the store is at work, folders come and go.
        found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
        matches = [_IN_PARTS.fullmatch(path.relative_to(root).as_posix()) for path in found]
        return sorted(match["key"] for match in matches if match and match["key"].startswith(prefix))


@dataclass
class FaultyWire:
    """Forwards requests, one fault or none for each."""

    #: Decides on each request.
    rule: Rule = lambda *_: "pass"
    #: Requests that came, by method.
    requests: Counter[str] = field(default_factory=Counter)
    #: The connections that are open.
    connections: set[object] = field(default_factory=set)
    target: int = 0
    #: Where it listens; the store itself is on loopback.
    host: str = HOST

    def __post_init__(self) -> None:
        wire = self
        self.gate = Gate()

        class Handler(_Forward):
            pass

        Handler.wire = wire
        self._server = ThreadingHTTPServer((self.host, 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def lead_to(self, port: int) -> None:
        """Forward to this port from now on."""
        self.target = port

    def mend(self) -> None:
        """Let everything pass from now on."""
        self.rule = lambda *_: "pass"

    def wait_until_left(self, known: Collection[object]) -> None:
        """Wait until all connections but these have ended: the store has then done what a killed process asked for."""
        _answers(self.port)  # connections are taken in the order in which they came, so the others are among those open
        wait_for(lambda: self.connections <= set(known), "the end of the connections of who was killed")

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Gate:
    """Lets many through at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_alone = False

    @contextmanager
    def pass_through(self, *, alone: bool) -> Iterator[None]:
        """Wait for one's turn, and pass."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not (alone and self._inside))
            self._inside += 1
            self._is_alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._is_alone = False
                self._changed.notify_all()


class OpenGate(Gate):
    """Lets everybody through, so that what S3Proxy does then is its own."""

    @contextmanager
    def pass_through(self, *, alone: bool) -> Iterator[None]:
        """Pass."""
        yield


class _Forward(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16
    wire: FaultyWire

    def handle(self) -> None:
        self.wire.connections.add(self)
        try:
            with suppress(ConnectionError):  # whoever asked was killed
                super().handle()
        finally:
            self.wire.connections.discard(self)

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.wire.requests[self.command] += 1
        fate = self.wire.rule(self.command, self.path, dict(self.headers.items()))
        if fate == "reset":
            self._hang_up()
            return
        if fate in {"500", "503"}:
            code = {"500": "InternalError", "503": "SlowDown"}[fate]
            self._answer(int(fate), {}, f"<Error><Code>{code}</Code></Error>".encode())
            return
        if fate == "slow":
            time.sleep(1.5)
        try:
            status, headers, answer = self._forward(body)
        except (OSError, HTTPException):
            self._hang_up()
            return
        if fate == "lost":
            self._hang_up()
        else:
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - the library's names

    def _forward(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        is_alone = self.command == "PUT" and bool({"If-None-Match", "If-Match"} & set(map(str.title, self.headers)))
        connection = HTTPConnection(HOST, self.wire.target, timeout=60)
        try:
            with self.wire.gate.pass_through(alone=is_alone):
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                return response.status, dict(response.headers.items()), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        if status not in {204, 304}:
            self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def read_store(store: ObjectStore, url: str, columns: list[str] | None = None) -> pa.Table:
    """Read everything below a URL as a reader does that knows nothing of a ledger."""
    filesystem = S3FileSystem(
        access_key=KEY_ID, secret_key=SECRET, endpoint_override=store.endpoint, region="us-east-1"
    )
    return ds.dataset(url.removeprefix("s3://"), filesystem=filesystem, partitioning="hive").to_table(columns=columns)


def assert_on_store_once(store: ObjectStore, url: str, oracle: Oracle) -> None:
    """Fail unless each alert is there once, no object is there that no marker names, and nothing is staged."""
    table = read_store(store, url, ["kafka_partition", "kafka_offset"])
    found = Counter(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))
    assert found == Counter(oracle.values.keys())
    ledger = find_ledger(locate(url))
    named = {file.path for marker in ledger.markers(ledger.plans()) for file in marker.files}
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    assert set(store.files(prefix)) == {f"{prefix}/{path}" for path in named}
    assert ledger.staged() == []


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
