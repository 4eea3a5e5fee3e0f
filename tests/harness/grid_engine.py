"""A real Grid Engine on this machine: a master and one execution daemon, on loopback, with a root of the test's own."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.harness.batch import Daemons, ensure_packages, run
from tests.harness.kafka_install import HarnessError
from tests.harness.kafka_settings import free_ports

#: More slots than the machine has cores, so that all jobs of a test run at once.
SLOTS = 6
START_TIMEOUT_S = 60
HOST = "localhost"
LIBRARY = Path("/usr/lib/gridengine")
SHARE = Path("/usr/share/gridengine")
QUEUE = "default.q"
_NONE = ("load_scaling", "complex_values", "user_lists", "xuser_lists", "projects", "xprojects", "usage_scaling")


def ensure_grid_engine() -> None:
    """Install Grid Engine from Debian's packages where it is missing."""
    programs = {"sge_qmaster": "gridengine-master", "sge_execd": "gridengine-exec", "qsub": "gridengine-client"}
    ensure_packages("Grid Engine", programs)


class GridEngine:
    """A Grid Engine of one node; a context manager."""

    def __init__(self, folder: Path) -> None:
        # Where everything of it is kept.
        self._folder = folder
        self._root = folder / "root"
        self._daemons = Daemons()
        master, execution = free_ports(2)
        self._ports = {"SGE_QMASTER_PORT": str(master), "SGE_EXECD_PORT": str(execution)}

    @property
    def environment(self) -> dict[str, str]:
        """What makes Grid Engine's commands talk to this one."""
        return {"SGE_ROOT": str(self._root), "SGE_CELL": "default", **self._ports}

    def __enter__(self) -> GridEngine:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(HarnessError):
            for job in self.jobs():
                self.run("qdel", job, check=False)
            deadline = time.monotonic() + 15
            while self.jobs() and time.monotonic() < deadline:
                time.sleep(0.2)
        self._daemons.stop()

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of Grid Engine's commands; returns what it says."""
        return run(command, os.environ | self.environment, check=check)

    def jobs(self, state: str | None = None) -> list[str]:
        """List the jobs that wait or run, or those in one state, such as ``r``."""
        rows = [line.split() for line in self.run("qstat").splitlines()]
        jobs = {row[0]: row[4] for row in rows if len(row) > 4 and row[0].isdigit()}
        return [job for job, found in jobs.items() if state in {None, found}]

    def down(self) -> None:
        """Crash the node: its daemon and everything that runs in its jobs is gone."""
        self._daemons.kill("execd")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told = process.environ()
                # The daemons themselves have no job.
                if told.get("SGE_ROOT") == str(self._root) and told.get("JOB_ID"):
                    process.kill()

    def up(self) -> None:
        """Bring the node back, where it is down."""
        if not self._daemons.is_running("execd"):
            self._start_node()
        self._wait_for_node()

    def _start(self) -> None:
        common = self._root / "default" / "common"
        common.mkdir(parents=True)
        for name in ("bin", "lib", "utilbin", "util"):
            (self._root / name).symlink_to(f"/var/lib/gridengine/{name}")
        spool = self._folder / "spool"
        (spool / "qmaster" / "job_scripts").mkdir(parents=True)
        (spool / "db").mkdir()
        (spool / "execd").mkdir()
        bootstrap = {
            "admin_user": "root",
            "default_domain": "none",
            "ignore_fqdn": "false",
            "spooling_method": "berkeleydb",
            "spooling_lib": "libspoolb",
            "spooling_params": spool / "db",
            "binary_path": LIBRARY,
            "qmaster_spool_dir": spool / "qmaster",
            "security_mode": "none",
            "listener_threads": 2,
            "worker_threads": 2,
            "scheduler_threads": 1,
        }
        (common / "bootstrap").write_text("".join(f"{name} {value}\n" for name, value in bootstrap.items()))
        (common / "act_qmaster").write_text(f"{HOST}\n")
        (common / "host_aliases").write_text(f"{HOST} {socket.gethostname()}\n")
        # Tests may be root's, whose jobs it otherwise refuses.
        changed = {"execd_spool_dir": spool / "execd", "min_uid": 0, "min_gid": 0, "load_report_time": "0:0:5"}
        configuration = self._changed((SHARE / "default-configuration").read_text(), changed)
        self.run(str(LIBRARY / "spoolinit"), "berkeleydb", "libspoolb", str(spool / "db"), "init")
        defaults = str(LIBRARY / "spooldefaults")
        self.run(defaults, "configuration", str(configuration))
        self.run(defaults, "complexes", str(SHARE / "util" / "resources" / "centry"))
        self.run(defaults, "usersets", str(SHARE / "util" / "resources" / "usersets"))
        self.run(defaults, "managers", "root")
        self._daemon("qmaster")
        self._daemons.wait_until(lambda: HOST in self.run("qconf", "-sh", check=False), "its master", START_TIMEOUT_S)
        self._configure()
        self._start_node()
        self._wait_for_node()

    def _configure(self) -> None:
        self.run("qconf", "-as", HOST)
        host = self._folder / "host"
        host.write_text(
            "".join([f"hostname {HOST}\n", *(f"{name} NONE\n" for name in _NONE), "report_variables NONE\n"])
        )
        self.run("qconf", "-Ae", str(host), check=False)
        (self._folder / "group").write_text(f"group_name @allhosts\nhostlist {HOST}\n")
        self.run("qconf", "-Ahgrp", str(self._folder / "group"))
        queue = {
            "qname": QUEUE,
            "hostlist": "@allhosts",
            "slots": SLOTS,
            "shell": "/bin/bash",
            "shell_start_mode": "unix_behavior",
            "load_thresholds": "NONE",
            "pe_list": "NONE",
            "notify": "00:00:05",
            "tmpdir": "/tmp",
        }
        self.run("qconf", "-Aq", str(self._changed(self.run("qconf", "-sq"), queue)))
        soon = {"schedule_interval": "0:0:1", "flush_submit_sec": 1, "flush_finish_sec": 1}
        self.run("qconf", "-Msconf", str(self._changed(self.run("qconf", "-ssconf"), soon)))

    def _changed(self, text: str, values: dict[str, object]) -> Path:
        """Write a configuration with other values."""
        lines = [line for line in text.splitlines() if line and line.split()[0] not in {*values, "#"}]
        path = self._folder / "changed"
        path.write_text("\n".join([*(f"{name} {value}" for name, value in values.items()), *lines]) + "\n")
        return path

    def _start_node(self) -> None:
        self._daemon("execd")

    def _daemon(self, name: str) -> None:
        # SGE_ND: in the foreground
        environment = os.environ | self.environment | {"SGE_ND": "1"}
        self._daemons.start(name, [str(LIBRARY / f"sge_{name}")], self._folder / f"{name}.log", environment)

    def _wait_for_node(self) -> None:
        def ready() -> bool:
            rows = [line.split() for line in self.run("qstat", "-f", check=False).splitlines()]
            return any(row and row[0].startswith(QUEUE) and len(row) == 5 and row[3] != "-NA-" for row in rows)

        self._daemons.wait_until(ready, "its node", START_TIMEOUT_S)
