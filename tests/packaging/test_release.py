"""What stands beside the code at a release: the changes, the citation, the versions that are promised."""

from __future__ import annotations

import re
from datetime import date
from itertools import chain

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import fink_dask
from tests.harness.environments import PYTHONS, ROOT, project

CHANGES = (ROOT / "CHANGELOG.md").read_text()
RELEASED = dict(re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", CHANGES, re.MULTILINE))
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changes_have_a_heading_for_this_version_or_say_that_it_is_to_come() -> None:
    headings = re.findall(r"^## (.+)$", CHANGES, re.MULTILINE)
    assert headings == ["[Unreleased]", *(f"[{version}] - {day}" for version, day in RELEASED.items())]
    versions = [Version(version) for version in RELEASED]
    assert versions == sorted(versions, reverse=True)
    assert all(date.fromisoformat(day) for day in RELEASED.values())
    coming = re.search(r"^To become (\d+\.\d+\.\d+)", CHANGES, re.MULTILINE)
    known = {*RELEASED, *([coming[1]] if coming else [])}
    assert fink_dask.__version__ in known
    assert set(re.findall(r"^### (.+)$", CHANGES, re.MULTILINE)) <= KINDS


def test_the_citation_is_valid_and_of_this_version() -> None:
    # https://github.com/citation-file-format: what its schema asks for, of the keys that stand here.
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == project()["license"]
    assert citation["version"] == fink_dask.__version__
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project()["authors"]]
    assert len(set(citation["keywords"])) == len(citation["keywords"])
    texts = {"cff-version", "message", "title", "abstract", "type", "version", "license"}
    assert all(isinstance(citation[name], str) and citation[name].strip() for name in texts)
    assert set(citation) - {"date-released"} == texts | {"authors", "keywords"}
    # A date is of a release: this version has one as soon as the changes have it.
    assert str(citation.get("date-released")) == RELEASED.get(fink_dask.__version__, "None")


def test_the_pythons_that_are_promised_are_those_that_are_tested() -> None:
    classified = re.findall(r"Python :: (\d\.\d+)$", "\n".join(project()["classifiers"]), re.MULTILINE)
    assert tuple(classified) == PYTHONS
    assert project()["requires-python"] == f">={PYTHONS[0]}"
    policy = (ROOT / "docs" / "versions.md").read_text()
    assert f"{PYTHONS[0]} to {PYTHONS[-1]}" in policy


def test_every_dependency_has_a_lower_bound_and_the_reason_for_it_stands_beside() -> None:
    extras = [wanted for name, wanted in project()["optional-dependencies"].items() if name != "dev"]
    requirements = [Requirement(text) for text in chain(project()["dependencies"], *extras)]
    section = (ROOT / "docs" / "design.md").read_text().partition("## Dependencies")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+>=[\w.]+)` \| (\S.+) \|$", section, re.MULTILINE))
    assert sorted(rows) == sorted({str(each) for each in requirements})
