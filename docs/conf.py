"""The documentation as a site: ``make docs``.

The pages are those that are read in the repository, at the same places, so that a link works in both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import fink_dask

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "fink-dask"
author = "The fink-dask developers"
version = release = fink_dask.__version__
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/*.rst",
    "deploy/**.md",
    "examples/*.md",
]
# What is not looked through: it holds thousands of files, and none of ours.
exclude_patterns = [".*", "build", "dist", "tests", "benchmarks", "fink_dask"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Links into a page are GitHub's names of its headings.
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
# Types of a docstring are words, and other libraries have sites of their own.
nitpick_ignore_regex = [("py:(class|obj|exc)", r"(?!fink_dask).*")]

html_theme = "furo"
html_title = f"fink-dask {version}"
html_show_sphinx = False
html_copy_source = False
# The address of the site itself leads to the first page.
html_extra_path = ["site"]


def setup(app: Sphinx) -> None:
    """Make the table of contents of the links that the first page, and that of the deployment, show anyway."""
    app.connect("source-read", _add_contents)


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        for caption, links in re.findall(r"^## (.+)$((?:(?!^## )[\s\S])*)", source[0], re.MULTILINE):
            source[0] += _contents(re.findall(r"^- \[([^]]+)\]\(([^)#]+)\)", links, re.MULTILINE), caption)
    elif page == "deploy/README":
        source[0] += _contents(re.findall(r"\[`?([^]`]+)`?\]\((\w[\w-]*/README\.md)\)", source[0]))


def _contents(pages: list[tuple[str, str]], caption: str | None = None) -> str:
    entries = "\n".join(f"{name} <{page.rpartition('.')[0]}>" for name, page in pages)
    shown = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{shown}\n{entries}\n```\n"
