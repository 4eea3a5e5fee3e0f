"""A real Slurm on this machine: munged, slurmctld and a slurmd for each of three nodes, on loopback alone.

Nothing of the machine's own is touched: configuration, keys, state and logs are in a directory of the test's, and no
service is enabled. Daemons that only root may start run as root, so that containers without systemd will do.
"""

from __future__ import annotations

import os
import pwd
import secrets
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.harness.batch import Daemons, ensure_packages, run
from tests.harness.kafka_install import HarnessError
from tests.harness.kafka_settings import HOST, free_ports

#: More cores than the machine has, so that all jobs of a test run at once.
CORES = 4
MEMORY_MIB = 8000
START_TIMEOUT_S = 60


def ensure_slurm() -> None:
    """Install Slurm and munge from Debian's packages where they are missing."""
    ensure_packages("Slurm", {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge"})


class Slurm:
    """A Slurm of a few nodes; a context manager."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        # Where everything of it is kept.
        self._folder = folder
        # How many nodes there are, all on this machine.
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._conf = folder / "slurm.conf"
        self._daemons = Daemons()

    @property
    def environment(self) -> dict[str, str]:
        """What makes Slurm's commands talk to this one."""
        return {"SLURM_CONF": str(self._conf)}

    def __enter__(self) -> Slurm:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(HarnessError):  # its controller is gone; what follows ends the rest
            self._cancel_all()
        self._daemons.stop()

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of Slurm's commands; returns what it says."""
        return run(command, os.environ | self.environment, check=check)

    def jobs(self, state: str | None = None) -> list[str]:
        """List the jobs that wait or run, or those in one state."""
        return self.run("squeue", "-h", "-o", "%A", *(["-t", state] if state else [])).split()

    def node_of(self, job: str) -> str:
        """Name the node that a job runs on."""
        return self.run("squeue", "-h", "-o", "%N", "-j", job).strip()

    def down(self, node: str) -> None:
        """Take a node away, as when it crashes: its daemon and its jobs are gone, and Slurm is told."""
        self._daemons.kill(node)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told = process.environ()
                if told.get("SLURM_CONF") == str(self._conf) and told.get("SLURMD_NODENAME") == node:
                    process.kill()
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def up(self, node: str) -> None:
        """Bring a node back."""
        self._start_node(node)
        self._wait_for_nodes()
        self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)

    def tidy(self) -> None:
        """Cancel what still waits or runs, and bring back the nodes that are down."""
        self._cancel_all()
        for node in self.nodes:
            if not self._daemons.is_running(node):
                self.up(node)

    def _cancel_all(self) -> None:
        for job in self.jobs():
            self.run("scancel", job, check=False)
        deadline = time.monotonic() + 15
        while self.jobs() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _start(self) -> None:
        # The daemons drop their rights, or belong to another user: each must get at its own part.
        for parent in (self._folder, *self._folder.parents):
            if parent.stat().st_uid == os.geteuid() and parent not in {Path("/"), Path("/tmp")}:
                parent.chmod(parent.stat().st_mode | 0o011)
        self._start_munge()
        self._ports = free_ports(len(self.nodes) + 1)
        self._conf.write_text(self._configuration())
        (self._folder / "state").mkdir()
        env = os.environ | self.environment
        self._daemons.start(
            "slurmctld", ["slurmctld", "-D", "-f", str(self._conf)], self._folder / "slurmctld.log", env
        )
        for node in self.nodes:
            self._start_node(node)
        self._wait_for_nodes()

    def _start_munge(self) -> None:
        munge = self._folder / "munge"
        munge.mkdir()
        key = munge / "key"
        key.touch(0o400)
        key.chmod(0o600)
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        who = pwd.getpwnam("munge")
        for path in (munge, key):
            os.chown(path, who.pw_uid, who.pw_gid)
        munge.chmod(0o711)
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        arguments = [f"--{name}={munge / file}" for name, file in files.items()]
        command = ["runuser", "-u", "munge", "--", "munged", "--foreground", "--num-threads=2", *arguments]
        self._daemons.start("munged", command, self._folder / "munged.log")
        self._daemons.wait_until((munge / "sock").exists, "munged", START_TIMEOUT_S)

    def _start_node(self, node: str) -> None:
        (self._folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        command = ["slurmd", "-D", "-N", node, "-f", str(self._conf)]
        self._daemons.start(node, command, self._folder / f"{node}.log", os.environ | self.environment)

    def _wait_for_nodes(self) -> None:
        # "idle" is what Slurm says of a node before its daemon has come.
        def ready() -> bool:
            said = self.run("scontrol", "-o", "show", "node", check=False)
            return said.count("SlurmdStartTime=20") == len(self.nodes)

        self._daemons.wait_until(ready, "the nodes", START_TIMEOUT_S)

    def _configuration(self) -> str:
        controller, *ports = self._ports
        settings = {
            "ClusterName": "fink",
            "SlurmctldHost": f"localhost({HOST})",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._folder}/munge/sock",
            "CredType": "cred/munge",
            # Nobody else on the network is to see it.
            "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
            "SlurmctldPort": controller,
            "SlurmctldPidFile": f"{self._folder}/slurmctld.pid",
            "SlurmdPidFile": f"{self._folder}/%n.pid",
            "StateSaveLocation": f"{self._folder}/state",
            "SlurmdSpoolDir": f"{self._folder}/spool/%n",
            # None of what a container lacks: cgroups, accounting, MPI.
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "JobCompType": "jobcomp/none",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "SlurmdParameters": "config_overrides",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0",
            "ReturnToService": 2,
            "SlurmctldTimeout": 30,
            "SlurmdTimeout": 30,
            "KillWait": 5,
            "MinJobAge": 60,
            "InactiveLimit": 0,
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        for node, port in zip(self.nodes, ports, strict=True):
            where = f"NodeHostname=localhost NodeAddr={HOST} Port={port}"
            lines.append(f"NodeName={node} {where} CPUs={CORES} RealMemory={MEMORY_MIB} State=UNKNOWN")
        lines.append("PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO")
        return "\n".join(lines) + "\n"
