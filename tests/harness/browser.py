"""A headless Chromium that shows a page: what a visitor sees of it, and pictures."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.harness.kafka_install import HarnessError, apt_install, is_debian_root
from tests.harness.kafka_settings import HOST, free_ports

START_TIMEOUT_S = 60
_ANSWER_S = 30
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: No visit to anybody but the page; as root, as containers have it, Chromium has no sandbox.
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic", "--hide-scrollbars"),
    *("--no-proxy-server", "--force-device-scale-factor=1"),
)
#: Collects what is inside of open shadow roots as well, where Bokeh puts everything.
_WALK = """
    const found = [], walk = (node) => {
        for (const each of node.querySelectorAll("*")) {
            if (each.matches(SELECTOR)) found.push(each)
            if (each.shadowRoot) walk(each.shadowRoot)
        }
    }
    walk(document)
"""


def ensure_chromium() -> str:
    """Return the command of a Chromium, which is installed first where that is possible.

    Raises HarnessError if there is none; one line.
    """
    why = ""
    if not _chromium() and is_debian_root():
        try:
            apt_install(["chromium", "fonts-dejavu-core"])
        except HarnessError as error:
            why = f" ({error})"
    command = _chromium()
    if command is None:
        raise HarnessError(
            f"the tests of the dashboard need Chromium{why}: install it (Debian: apt-get install chromium)"
        )
    return command


def _chromium() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own; a context manager."""

    def __init__(self, url: str, width: int = 1400, height: int = 1000) -> None:
        (self._port,) = free_ports(1)
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        options = [*_OPTIONS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            [ensure_chromium(), *options, f"--remote-debugging-port={self._port}", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._socket: WebSocketClientConnection | None = None

    def __enter__(self) -> Browser:
        try:
            self._socket = self._loop.run_until_complete(self._connect(self._address()))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._close())
        self._loop.close()
        family = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(family, timeout=20)  # they write to the profile until then
        self._profile.cleanup()

    def _address(self) -> str:
        """Wait until the browser has a page, and return the address at which it can be asked."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{HOST}:{self._port}/json", timeout=5) as answer:
                    pages = [page for page in json.load(answer) if page["type"] == "page"]
            except (OSError, urllib.error.URLError):
                pages = []
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.1)
        raise HarnessError(f"Chromium did not start within {START_TIMEOUT_S} s")

    async def _close(self) -> None:
        """Part with the page; in the loop, since Tornado asks for the one that runs."""
        if self._socket is not None:
            self._socket.close()
            await asyncio.sleep(0)

    async def _connect(self, address: str) -> WebSocketClientConnection:
        return await websocket_connect(address, max_message_size=2**27)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the Chrome DevTools Protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), _ANSWER_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        assert self._socket is not None
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = await self._socket.read_message()
            assert said is not None, "Chromium has gone"
            message = json.loads(said)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                result: dict[str, Any] = message["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or None where it fails, as while a page is loaded."""
        try:
            answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        except RuntimeError:
            return None
        return None if "exceptionDetails" in answer else answer["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """Return what is written in each element that matches, as a visitor reads it."""
        walk = _WALK.replace("SELECTOR", json.dumps(selector))
        return self.evaluate(f"(() => {{ {walk}; return found.map((each) => each.innerText.trim()) }})()") or []

    def overlaps(self, selector: str) -> list[str]:
        """Name pairs of elements that lie over each other, though neither is inside of the other."""
        walk = _WALK.replace("SELECTOR", json.dumps(selector))
        found: list[str] = self.evaluate(
            f"""(() => {{
                {walk}
                const boxes = found.map((each) => [each, each.getBoundingClientRect()]).filter(([, box]) => box.height)
                const pairs = []
                boxes.forEach(([a, p], n) => boxes.slice(n + 1).forEach(([b, q]) => {{
                    const over = Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
                        && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1
                    if (over && !a.contains(b) && !b.contains(a)) pairs.push(`${{a.innerText}} | ${{b.innerText}}`)
                }}))
                return pairs
            }})()"""
        )
        return found

    def cut_off(self, selector: str) -> list[str]:
        """Name the elements whose text is wider than they are."""
        walk = _WALK.replace("SELECTOR", json.dumps(selector))
        found: list[str] = self.evaluate(
            f"""(() => {{
                {walk}
                const wide = (each) => each.scrollWidth > each.parentElement.clientWidth + 1
                return found.filter(wide).map((each) => each.innerText)
            }})()"""
        )
        return found

    def sources(self, *names: str) -> list[dict[str, list[float]]]:
        """Return the columns of what charts of Bokeh show, all of one moment."""
        found = self.evaluate(
            f"""{json.dumps(names)}.map((name) => {{
                const source = Bokeh.documents[0].get_model_by_name(name)
                return Object.fromEntries(Object.entries(source.data).map(([key, values]) => [key, Array.from(values)]))
            }})"""
        )
        return found or [{} for _ in names]

    def picture(self, path: Path, height: int | None = None) -> None:
        """Save what the page looks like, as a PNG; the whole of it."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
