"""Hosts of the tests' own: network namespaces on one switch, whose links can be cut.

A namespace lives as long as the process that holds it and those inside, and they end with this one, however it ends:
nothing has to be removed, and nothing of the machine's own network is touched. The hosts share the machine's file
system and its processors, and know each other by address only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.harness.batch import Daemons, ensure_packages, run
from tests.harness.kafka_install import HarnessError

_CLONE_NEWNET = 0x40000000
#: A private network that is nowhere but between these hosts.
_NETWORK = "10.77.0"


def ensure_hosts() -> None:
    """Install what makes network namespaces where it is missing, and see that they can be made here.

    Raises HarnessError if they can't: one line.
    """
    programs = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux"}
    ensure_packages("network", programs)
    try:
        with Network(1):
            pass
    except HarnessError as error:
        raise HarnessError(f"the tests on several hosts need network namespaces, veth and a bridge: {error}") from error


class Host:
    """A host: what is started inside hears and says everything through its link."""

    def __init__(self, name: str, address: str = "") -> None:
        # Of its port on the switch.
        self.name = name
        self.address = address
        self._daemons = Daemons()
        # It ends with the pipe that only this process holds, and says a word when its namespace is there.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--", "/bin/sh", "-c", "echo; read -r _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            self._holder.wait()
            raise HarnessError("a network namespace can't be made here, not even as root")
        self.pid = self._holder.pid

    def ip(self, *command: str) -> str:
        """Run ``ip`` inside."""
        return run(["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", "ip", *command], os.environ)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and what it starts meanwhile, threads as well as processes, be on this host."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    @contextmanager
    def without(self, other: Host) -> Iterator[None]:
        """Have no way to another host for a while."""
        self.ip("route", "add", "unreachable", f"{other.address}/32")
        try:
            yield
        finally:
            self.ip("route", "del", "unreachable", f"{other.address}/32")

    def start(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start a program inside; it ends with this process, however that ends."""
        with self.inside():
            self._daemons.start(name, ["setpriv", "--pdeathsig", "KILL", "--", *command], log, environment)

    def runs(self, name: str) -> bool:
        """Whether a program was started inside, and has not ended."""
        return self._daemons.is_running(name)

    def pid_of(self, name: str) -> int:
        """Process id of a program inside."""
        return self._daemons.pid_of(name)

    def kill(self, name: str) -> None:
        """End a program inside, and all that it has started, without a warning."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid_of(name), signal.SIGKILL)
        self._daemons.kill(name)

    def stop(self) -> None:
        """End the programs inside."""
        self._daemons.stop()

    def close(self) -> None:
        """End what runs inside, and let the namespace go."""
        self.stop()
        self._holder.kill()
        self._holder.communicate()


class Network:
    """Hosts on a switch; a context manager."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._switch: Host | None = None
        self.hosts: list[Host] = []

    def __enter__(self) -> Network:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in reversed(self.hosts):
            host.close()
        if self._switch is not None:
            self._switch.close()
        self.hosts, self._switch = [], None

    @contextmanager
    def cut(self, host: Host) -> Iterator[None]:
        """Cut a host's link for a while: what is sent gets lost, and neither side is told."""
        self._port(host, "nomaster")
        try:
            yield
        finally:
            self._port(host, "master", "switch")

    def _start(self) -> None:
        self._switch = Host("switch")
        self._switch.ip("link", "add", "switch", "type", "bridge")
        self._switch.ip("link", "set", "switch", "up")
        for number in range(1, self._count + 1):
            host = Host(f"h{number}", f"{_NETWORK}.{number}")
            self.hosts.append(host)
            host.ip("link", "set", "lo", "up")
            host.ip("link", "add", "eth0", "type", "veth", "peer", "name", host.name, "netns", str(self._switch.pid))
            host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
            self._port(host, "master", "switch")
            self._port(host, "up")

    def _port(self, host: Host, *setting: str) -> None:
        assert self._switch is not None
        self._switch.ip("link", "set", host.name, *setting)


def _enter(namespace: int) -> None:
    """Move this thread to a network namespace: setns(2), which os.setns is in Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise HarnessError(f"setns: {os.strerror(ctypes.get_errno())}")
