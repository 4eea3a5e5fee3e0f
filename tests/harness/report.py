"""A report in a real browser: what it shows, and what it must not do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.browser import Browser
from tests.harness.oracle import wait_for

#: Keeps what goes wrong before anything of the page runs.
_WATCH = """
    window.troubles = []
    addEventListener("error", (event) => troubles.push(`error: ${event.message || event.target.tagName}`), true)
    addEventListener("unhandledrejection", (event) => troubles.push(`rejected: ${event.reason}`))
    addEventListener("securitypolicyviolation", (event) => troubles.push(`refused: ${event.blockedURI}`))
    for (const name of ["error", "warn"]) {
        const before = console[name]
        console[name] = (...words) => { troubles.push(`${name}: ${words.join(" ")}`); before(...words) }
    }
"""


@contextmanager
def shown_report(page: Path, width: int = 1400, height: int = 1000) -> Iterator[Browser]:
    """Open a report in a window of this size, and wait until all of it is drawn."""
    with Browser("about:blank", width, height) as browser:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.call("Page.enable")
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        browser.call("Page.navigate", url=page.resolve().as_uri())
        drawn = "document.readyState == 'complete' && Bokeh.documents.every((each) => each.is_idle)"
        wait_for(lambda: bool(browser.evaluate(f"Boolean(window.Bokeh && Bokeh.documents.length && {drawn})")), "it")
        time.sleep(0.5)  # charts take the width of their place in a frame or two of the browser
        yield browser


def troubles(browser: Browser, width: int) -> list[str]:
    """List errors, warnings, requests to anywhere, and whether it is wider than a window of this width."""
    found: list[str] = browser.evaluate("troubles")
    requests: list[str] = browser.evaluate(
        "performance.getEntriesByType('resource').map((each) => each.name).filter((name) => !name.startsWith('data:'))"
    )
    wide = browser.evaluate("document.documentElement.scrollWidth")
    too_wide = [f"it is {wide} wide in a window of {width}"] if wide > width else []
    return [*found, *(f"asked for {name}" for name in requests), *too_wide]


def tile(browser: Browser, name: str) -> str:
    """Read a tile."""
    (words,) = browser.texts(f"#{name} b")
    return words


def painted(browser: Browser) -> tuple[int, int]:
    """Count the charts, and those whose canvas has something in it."""
    found: Any = browser.evaluate(
        """(() => {
            const found = []
            const walk = (node) => node.querySelectorAll("*").forEach((each) => {
                if (each.tagName == "CANVAS") found.push(each)
                if (each.shadowRoot) walk(each.shadowRoot)
            })
            walk(document)
            const has = (each) => each.width && each.getContext("2d").getImageData(0, 0, each.width, each.height)
                .data.some((value) => value)
            return [document.querySelectorAll("[data-root-id]").length, found.filter(has).length]
        })()"""
    )
    return int(found[0]), int(found[1])
