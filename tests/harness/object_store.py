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
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from io import BufferedIOBase
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
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
        self._server = _Server((self.host, 0), Handler)
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


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


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


class _Forward(StreamRequestHandler):
    """One connection of a client, and one to the store; of a request it reads what it must, and no more."""

    disable_nagle_algorithm = True
    wbufsize = 2**16
    wire: FaultyWire

    def setup(self) -> None:
        super().setup()
        self._store: _Upstream | None = None

    def handle(self) -> None:
        self.wire.connections.add(self)
        try:
            with suppress(ConnectionError):  # whoever asked was killed
                while self._pass_on():
                    pass
        finally:
            self.wire.connections.discard(self)

    def finish(self) -> None:
        self._leave_store()
        with suppress(ConnectionError):
            super().finish()

    def _pass_on(self) -> bool:
        """Deal with a request; False where there is none, or the connection ends with it."""
        if not (head := _Head.read(self.rfile)):
            return False
        method, path, _ = head.first.decode("latin-1").split()
        headers = {name: value for name, value, _ in head.fields}
        known = {name.lower(): value for name, value in headers.items()}
        if "expect" in known:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        body = self.rfile.read(length := int(known.get("content-length") or 0))
        if len(body) < length:  # whoever asked was killed
            return False
        self.wire.requests[method] += 1
        fate = self.wire.rule(method, path, headers)
        if fate == "reset":
            return False
        if fate in {"500", "503"}:
            code = {"500": "InternalError", "503": "SlowDown"}[fate]
            self._answer(
                method, f"HTTP/1.1 {fate} {code}\r\n".encode(), [], f"<Error><Code>{code}</Code></Error>".encode()
            )
            return True
        if fate == "slow":
            time.sleep(1.5)
        is_alone = method == "PUT" and bool({"if-none-match", "if-match"} & set(known))
        asked = head.without({"expect"}) + body
        with self.wire.gate.pass_through(alone=is_alone):
            try:
                first, fields, answer = self._upstream().ask(method, asked)
            except OSError:
                self._leave_store()
                return False
        if fate == "lost":
            return False
        self._answer(method, first, fields, answer)
        return known.get("connection", "").lower() != "close"

    def _upstream(self) -> _Upstream:
        if self._store is None or not self._store.is_of_use(self.wire.target):
            self._leave_store()
            self._store = _Upstream(self.wire.target)
        return self._store

    def _leave_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _answer(self, method: str, first: bytes, fields: Sequence[_Field], content: bytes) -> None:
        left_out, length = {"transfer-encoding", "connection", "content-length"}, str(len(content))
        for name, value, _ in fields:
            if method == "HEAD" and name.lower() == "content-length":
                length = value
        lines = [first, *(line for name, _, line in fields if name.lower() not in left_out)]
        if first.split()[1] not in {b"204", b"304"}:
            lines.append(f"Content-Length: {length}\r\n".encode())
        self.wfile.write(b"".join([*lines, b"\r\n", b"" if method == "HEAD" else content]))
        self.wfile.flush()


#: A header: its name, its value, and the line that has both.
_Field = tuple[str, str, bytes]


@dataclass(frozen=True)
class _Head:
    """What a request or an answer begins with: Python's own parser takes longer than the store does."""

    first: bytes
    fields: Sequence[_Field]

    @classmethod
    def read(cls, file: BufferedIOBase) -> _Head | None:
        """Read one; None where there is no more."""
        first = file.readline()
        fields: list[_Field] = []
        while line := file.readline():
            if line == b"\r\n":
                return cls(first, fields)
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name, value.strip(), line))
        return None

    def without(self, names: Collection[str]) -> bytes:
        """Spell it without the headers of these names."""
        return b"".join([self.first, *(line for name, _, line in self.fields if name.lower() not in names), b"\r\n"])


class _Upstream:
    """A connection to the store, for one request after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_connection((HOST, port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def is_of_use(self, port: int) -> bool:
        """Tell whether it leads there, and the store has not ended it."""
        return self._port == port and not select.select([self._socket], [], [], 0)[0]

    def ask(self, method: str, request: bytes) -> tuple[bytes, Sequence[_Field], bytes]:
        """Return the first line, the headers and the content of the answer.

        Raises OSError: there is none.
        """
        self._socket.sendall(request)
        head = _Head.read(self._file)
        while head is not None and head.first.split()[1] == b"100":
            head = _Head.read(self._file)
        if head is None:
            raise ConnectionError("the store has ended the connection")
        known = {name.lower(): value for name, value, _ in head.fields}
        if method == "HEAD" or head.first.split()[1] in {b"204", b"304"}:
            content = b""
        elif known.get("transfer-encoding", "").lower() == "chunked":
            content = self._chunks()
        elif "content-length" in known:
            content = self._exactly(int(known["content-length"]))
        else:
            content = self._file.read()
        return head.first, head.fields, content

    def _chunks(self) -> bytes:
        chunks: list[bytes] = []
        while size := int(self._file.readline().partition(b";")[0], 16):
            chunks.append(self._exactly(size))
            self._file.readline()
        while self._file.readline().strip():  # what comes after the last one
            pass
        return b"".join(chunks)

    def _exactly(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise ConnectionError("the store has ended the connection")
        return content

    def close(self) -> None:
        """End it."""
        self._file.close()
        self._socket.close()


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
