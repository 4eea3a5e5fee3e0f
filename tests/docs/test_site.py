"""The documentation as a site: it is built without a warning, and no link in it leads nowhere."""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import fink_dask
from tests.harness.environments import ROOT

pytestmark = pytest.mark.docs


class Page(HTMLParser):
    """What a page of the site can be linked to by, and what it links to or loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag in {"img", "script", "link", "iframe"} and (values.get("src") or values.get("href")):
            self.loaded.add(values.get("src") or values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = ["make", "-C", str(ROOT), "docs", f"DOCS={folder}"]
    built = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_in_the_site_and_no_link_in_it_leads_nowhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for source in [*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md"), ROOT / "README.md"]:
        assert site / source.relative_to(ROOT).with_suffix(".html") in pages
    wrong = []
    for path, page in pages.items():
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert wrong == []


def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc} == set()


def test_the_public_names_are_described_from_their_docstrings(site: Path) -> None:
    described = Page(site / "docs" / "api.html").anchors
    names = {f"fink_dask.{name}" for name in fink_dask.__all__ if name != "__version__"}
    # A name is described where it is defined.
    places = {f"{getattr(fink_dask, name).__module__}.{name}" for name in fink_dask.__all__ if name != "__version__"}
    assert len(described & (names | places)) == len(names)
