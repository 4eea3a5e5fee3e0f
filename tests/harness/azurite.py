"""A real Azure Blob Storage on loopback: Microsoft's Azurite, which keeps everything in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
from email.utils import formatdate
from http.client import HTTPConnection
from pathlib import Path

from tests.harness.kafka_install import HarnessError, cache_folder, locked, run_tool
from tests.harness.kafka_settings import HOST, free_ports

VERSION = "3.37.0"
_START_S = 180
CONTAINER = "alerts-container"
#: The account that every Azurite has, and its key, as Microsoft documents them.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def ensure_azurite() -> Path:
    """Return Azurite's program, installed first where it is not there.

    Raises HarnessError: node is missing, or npm fails; one line.
    """
    if shutil.which("npm") is None:
        raise HarnessError("Azurite needs node and npm, which are not installed")
    room = cache_folder() / f"azurite-{VERSION}"
    room.mkdir(parents=True, exist_ok=True)
    program = room / "node_modules" / ".bin" / "azurite-blob"
    with locked(room / "lock"):  # a second process waits, and then finds the work done
        if not program.exists():
            options = ["--prefix", str(room), "--no-audit", "--no-fund", "--silent"]
            run_tool(["npm", "install", *options, f"azurite@{VERSION}"], f"npm's installation of Azurite {VERSION}")
    return program


class Azurite:
    """An account with one container."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        options = ["--blobPort", str(self.port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
        self._process = subprocess.Popen(
            [ensure_azurite(), *options, "--disableTelemetry"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._create()
        except BaseException:
            self.end()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What tells a client where the store is, and who it is."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://{HOST}:{self.port}/{ACCOUNT}",
        }

    def end(self) -> None:
        """End it; all that it kept is gone."""
        self._process.kill()
        self._process.wait()

    def _create(self) -> None:
        """Make the container, as soon as it answers."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection((HOST, self.port)).close()
                break
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise HarnessError("Azurite does not start") from error
                time.sleep(0.05)
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        named = "".join(f"{name}:{value}\n" for name, value in headers.items())
        text = "PUT" + "\n" * 12 + f"{named}/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        signature = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        connection = HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request("PUT", f"/{ACCOUNT}/{CONTAINER}?restype=container", headers=headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 201:
            raise HarnessError(f"Azurite makes no container: {status}")
