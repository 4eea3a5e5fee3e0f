"""A real Apache Kafka that a test starts, stops, kills and freezes: a KRaft node on loopback, or several of them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.harness.kafka_install import HarnessError, ensure_kafka_jars, find_java, kafka_room, locked
from tests.harness.kafka_settings import HOST, Listener, Node, free_ports, server_properties
from tests.harness.topics import client_config

#: A broker of a test lives for seconds: what a compiler or a collector with threads of its own gains comes too late.
QUICKLY = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
#: The variable that names a Kafka which runs already.
EXTERNAL = "FINK_DASK_TEST_BOOTSTRAP"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class ExternalKafka:
    """A Kafka that somebody else runs, named by `EXTERNAL`."""

    bootstrap_servers: str


class KafkaBroker:
    """Run one Kafka broker, on the same two ports and the same data for as long as the object lives.

    Leaving it as a context manager stops it. It dies with the process that started it, however that ends.

    `extra`: server properties that win over the harness's.
    `quorum`: the nodes of its cluster, this one first; by default it is alone, with one listener that asks nobody who
    he is.
    """

    def __init__(
        self,
        folder: Path,
        extra: Mapping[str, str] | None = None,
        quorum: Sequence[Node] = (),
        cluster_id: str = "",
        users: Mapping[str, str] | None = None,
        java_options: Sequence[str] = (),
    ) -> None:
        # An own folder for topics, settings and the log of the broker; made where it is missing.
        self.folder = folder
        self.log_path = folder / "broker.log"
        self.data_dir = folder / "data"
        self.node, *_ = quorum or make_nodes(1)
        self.properties = server_properties(self.node, quorum or [self.node], self.data_dir, extra or {})
        # The id that the nodes of a cluster share.
        self._cluster_id = cluster_id or new_cluster_id()
        # Passwords of the users that SCRAM-SHA-512 knows.
        self._users = dict(users or {})
        # What its Java is told instead of where the archive of classes is.
        self._java_options = java_options
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tell another process where it is; only the one that started it ends it."""
        return self.__dict__ | {"_process": None, "_watchdog": None}

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients, ``host:port``."""
        return self.address(self.node.listeners[0].name)

    def address(self, listener: str) -> str:
        """Address of a listener, ``host:port``."""
        (port,) = [each.port for each in self.node.listeners if each.name == listener]
        return f"{HOST}:{port}"

    @property
    def pid(self) -> int:
        """Process id of the broker that runs."""
        return self._running().pid

    def start(self) -> None:
        """Start the broker and return when it answers; the data of an earlier start is there again.

        Raises HarnessError: java or Kafka is missing, or the broker did not come up: with the tail of its log.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the broker, and don't wait until it answers: the nodes of a cluster wait for each other.

        Raises HarnessError: java or Kafka is missing, or the broker runs already.
        """
        if self._process is not None:
            raise HarnessError(f"the broker at {self.bootstrap_servers} runs already")
        jars = ensure_kafka_jars()
        java = find_java()
        assert java is not None  # ensure_kafka_jars has seen to it
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "server.properties"
        settings.write_text("".join(f"{name}={value}\n" for name, value in self.properties.items()))
        # No memory-mapped counters: a killed JVM would leave them in the temporary directory.
        run = [java, "-Xmx1g", "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        run += [*QUICKLY, *(self._java_options or use_archive()), "-cp", str(jars / "*")]
        with self.log_path.open("ab") as log:
            if not (self.data_dir / "meta.properties").exists():
                self._format([*run, "kafka.tools.StorageTool", "format"], settings, log.fileno())
            # A session of its own: Ctrl+C is for pytest, which then stops the broker in its own time.
            self._process = subprocess.Popen(
                [*run, "kafka.Kafka", str(settings)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watchdog = watch(self._process.pid)

    def stop(self) -> None:
        """End the broker with SIGTERM, or with SIGKILL where that takes too long; a stopped one stays stopped."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End the broker with SIGKILL, as a power cut does; a stopped one stays stopped."""
        if self._process is not None:
            self._process.kill()
        self._reap()

    def pause(self) -> None:
        """Freeze the broker: its connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker run on."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the broker where it runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def stored_bytes(self, topic: str) -> int:
        """Measure the batches that Kafka keeps of a topic, in its own files."""
        return sum(path.stat().st_size for path in self.data_dir.glob(f"{topic}-*/*.log"))

    def configure(self, *arguments: str) -> None:
        """Change with Kafka's own tool what no client library here can, such as a quota."""
        java, jars = find_java(), ensure_kafka_jars()
        assert java is not None
        command = [java, "-XX:-UsePerfData", *QUICKLY, *use_archive(), "-cp", str(jars / "*")]
        command += ["kafka.admin.ConfigCommand"]
        with self.log_path.open("ab") as log:
            self._call([*command, "--bootstrap-server", self.bootstrap_servers, *arguments], log.fileno())

    def discard(self) -> None:
        """Kill the broker and delete its topics; settings and log stay for whoever looks for a failure's cause."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> KafkaBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise HarnessError(f"the broker at {self.bootstrap_servers} does not run")
        return self._process

    def _reap(self) -> None:
        """Forget a process that ends; the watchdog goes last, so that there is never a broker without one."""
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._watchdog is not None:
            self._watchdog.communicate(b"done\n")
            self._watchdog = None

    def _format(self, tool: Sequence[str], settings: Path, log: int) -> None:
        """Make the data directory as Kafka's tool does: by the tool, or from what it made for another broker."""
        made_of = hashlib.sha256(repr(sorted(self._users.items())).encode()).hexdigest()[:12]
        kept = kafka_room() / f"bootstrap-{made_of}.checkpoint"
        if kept.exists():
            self.data_dir.mkdir()
            shutil.copyfile(kept, self.data_dir / "bootstrap.checkpoint")
            ids = {"node.id": self.node.node_id, "cluster.id": self._cluster_id, "directory.id": new_cluster_id()}
            text = "".join(f"{name}={value}\n" for name, value in {"version": 1, **ids}.items())
            (self.data_dir / "meta.properties").write_text(text)
            return
        command = [*tool, f"--cluster-id={self._cluster_id}", "--config", str(settings)]
        for name, password in self._users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        self._call(command, log)
        # Several test processes may do so at once.
        part = kept.with_suffix(f".{uuid.uuid4().hex}")
        shutil.copyfile(self.data_dir / "bootstrap.checkpoint", part)
        part.replace(kept)

    def _call(self, command: Sequence[str], log: int) -> None:
        what = next(each for each in command if each.startswith("kafka."))
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=START_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise HarnessError(self._with_log(f"{what} failed with status {done.returncode}"))

    def wait_until_ready(self) -> None:
        """Wait until this node is in the metadata and every partition of it has a leader; a broker that fails is ended.

        Raises HarnessError: the broker did not come up: with the tail of its log.
        """
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        admin = AdminClient(client_config(self.bootstrap_servers))
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if (status := self._running().poll()) is not None:
                raise HarnessError(self._with_log(f"the broker ended with status {status} before it was ready"))
            try:
                metadata = admin.list_topics(timeout=0.5)
            except KafkaException:
                continue  # list_topics has waited already
            partitions = [part for topic in metadata.topics.values() for part in topic.partitions.values()]
            if self.node.node_id in metadata.brokers and all(part.leader >= 0 for part in partitions):
                return
            time.sleep(0.05)
        raise HarnessError(self._with_log(f"the broker was not ready after {START_TIMEOUT_S:.0f} s"))

    def _with_log(self, message: str) -> str:
        tail = self.log_path.read_text(errors="replace").splitlines()[-30:]
        return "\n".join([f"{message}; the end of {self.log_path}:", *tail])


class KafkaCluster:
    """Run several nodes as one cluster; any of them may be stopped, killed and frozen by itself.

    `folder`: an own folder, with one for each node.
    `extra`: server properties that win over the harness's.
    """

    def __init__(self, folder: Path, count: int = 3, extra: Mapping[str, str] | None = None) -> None:
        nodes, cluster_id = make_nodes(count), new_cluster_id()
        self.brokers = [
            KafkaBroker(folder / str(node.node_id), extra, [node, *(n for n in nodes if n != node)], cluster_id)
            for node in nodes
        ]

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all nodes."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def start(self) -> None:
        """Start all nodes and return when each answers."""
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_until_ready()

    def discard(self) -> None:
        """Kill all nodes and delete their topics."""
        for broker in self.brokers:
            broker.discard()


def ensure_archive() -> None:
    """Keep the classes of a broker as Java maps them into memory, unless they are kept: it starts in half the time."""
    archive = kafka_room() / "classes.jsa"
    ensure_kafka_jars()
    with locked(kafka_room() / "archive-lock"):
        if archive.exists():
            return
        with tempfile.TemporaryDirectory() as folder:
            part = archive.with_suffix(".part")
            # Java writes it as it ends.
            with KafkaBroker(Path(folder) / "broker", java_options=[f"-XX:ArchiveClassesAtExit={part}"]):
                pass
            if part.exists():
                part.replace(archive)


def use_archive() -> list[str]:
    """Tell Java where these classes are; one that they were not made by says so in the log, and loads its own."""
    archive = kafka_room() / "classes.jsa"
    return [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []


def make_nodes(count: int, protocols: Mapping[str, str] | None = None) -> list[Node]:
    """Choose ports for the nodes of a cluster; each has a listener for each of `protocols`, by its name."""
    protocols = protocols or {"PLAINTEXT": "PLAINTEXT"}
    ports = iter(free_ports(count * (1 + len(protocols))))
    return [
        Node(
            number,
            next(ports),
            tuple(Listener(name, protocol, next(ports)) for name, protocol in protocols.items()),
        )
        for number in range(1, count + 1)
    ]


def new_cluster_id() -> str:
    """Make an id as Kafka's own tool does."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def watch(pid: int) -> subprocess.Popen[bytes]:
    """Start a process that kills `pid` when this process is gone.

    It waits on a pipe that only this process holds: a line means that all is well, the pipe's end that nobody is left.
    Unlike Linux's PR_SET_PDEATHSIG this works on macOS, and for a broker that was started by a thread that has ended.

    Returns: the watchdog; write a line to its standard input to send it home.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _ || kill -KILL "$1"', "watchdog", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
