"""A real dask-gateway on loopback, which starts schedulers and workers as processes of this machine."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.harness.environments import make_environment
from tests.harness.kafka_install import HarnessError, cache_folder, locked, run_tool
from tests.harness.kafka_settings import HOST, free_ports

VERSION = "2026.3.0"
_START_S = 120
#: Since distributed 2026.6 there is no dask-scheduler any more, which dask-gateway would start.
_SETTINGS = """\
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "{host}:{port}"
c.Proxy.address = "{host}:{proxy}"
c.UnsafeLocalBackend.clusters_directory = {folder!r}
c.UnsafeLocalBackend.cluster_heartbeat_period = 1
c.ClusterConfig.scheduler_cmd = [{python!r}, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [{python!r}, "-m", "dask", "worker"]
c.ClusterConfig.environment = {variables!r}
c.ClusterConfig.adaptive_period = 0.3
"""


def ensure_gateway() -> Path:
    """Return the Python of an environment that has dask-gateway and all that this one has, installed first if need be.

    Raises HarnessError: pip fails; one line.
    """
    room = cache_folder() / f"dask-gateway-{VERSION}"
    room.mkdir(parents=True, exist_ok=True)
    python, done = room / "environment" / "bin" / "python", room / "installed"
    with locked(room / "lock"):  # a second process waits, and then finds the work done
        if not done.exists():
            make_environment(room / "environment")
            (site,) = (room / "environment" / "lib").glob("python*/site-packages")
            lines = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
            (site / "of-the-project.pth").write_text(lines)
            what = [f"dask-gateway=={VERSION}", f"dask-gateway-server[local]=={VERSION}"]
            command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            run_tool([*command, *what], f"pip's installation of dask-gateway {VERSION}")
            done.touch()
    return python


@contextmanager
def running_gateway(folder: Path, variables: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Run a gateway, whose clusters get `variables`; yields the Python of its environment, and its address."""
    python = ensure_gateway()
    port, proxy = free_ports(2)
    settings, clusters = folder / "dask_gateway_config.py", folder / "clusters"
    clusters.mkdir()
    names = {"host": HOST, "port": port, "proxy": proxy, "folder": str(clusters), "python": str(python)}
    settings.write_text(_SETTINGS.format(**names, variables=dict(variables)))
    with (folder / "gateway.log").open("wb") as said:
        process = subprocess.Popen(
            [str(python.with_name("dask-gateway-server")), "-f", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + _START_S
        while not all(map(_listens, (port, proxy))):
            if process.poll() is not None or time.monotonic() > deadline:
                last = (folder / "gateway.log").read_text().splitlines()[-1:]
                raise HarnessError(f"dask-gateway does not start: {' '.join(last)}")
            time.sleep(0.05)
        yield python, f"http://{HOST}:{proxy}"
    finally:
        process.terminate()  # it ends its clusters first
        process.wait(60)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except OSError:
        return False
    return True
