"""Which tests a make target runs: `make test` those that each change needs, further targets what takes longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

#: Each is a marker, and a make target, `make test-NAME`, of that name. `make test` runs what has none of these markers,
#: and the samples.
TARGETS = {
    "faults": "faults of brokers, disks, memory and networks that take long",
    "links": "transfers over links that are slow, far, or break",
    "kills": "kills after every operation and at random moments",
    "following": "topics that are followed while things happen to them; several topics at once",
    "stores": "transfers to an object store that fails",
    "commands": "whole commands as processes, in all their combinations; Dask clusters of others",
    "docs": "every page's commands, typed; the examples, and the documentation as a site",
    "packaging": "what is released, installed into environments of its own",
    "readers": "every reader of a dataset, Spark among them, and catalogues",
    "browser": "dashboard, report and terminal, as they look in a browser",
    "environments": "every supported Python, and the oldest libraries; make test-pythons and make test-oldest run it",
    "batch": "batch systems and several hosts; make test-cluster runs it",
}
SAMPLE = "sample"
#: What the guarantee rests on comes first, so that a run that is cut off has reached it; then what starts commands.
#: What is left needs no process: it fills the time of whoever has nothing long to do at the end. Folders beside each
#: other take turns, a file each: while the tests of one wait, those of the other have something to do.
FIRST = (
    ("faults", "cluster"),
    ("following", "ranges", "running"),
    ("kafka", "ledger", "planning"),
    ("verifying", "compaction", "store"),
    ("docs", "cli"),
    ("lightcurves", "api"),
    ("readers", "export", "joining"),
    ("harness", "dataset", "report"),
)
_EVERYDAY, _ALL = "test", "all"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that make gives."""
    parser.addoption(
        "--target",
        choices=[_EVERYDAY, *TARGETS, _ALL],
        default=_EVERYDAY,
        help="run the tests of one make target, or all of them; a test that is named by its id is always run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for name, text in TARGETS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    config.addinivalue_line("markers", f"{SAMPLE}: make test runs it, although the tests around it are a target's")


def target_of(item: pytest.Item) -> str:
    """Say which target runs a test."""
    found = [mark.name for mark in item.iter_markers() if mark.name in TARGETS]
    # The marker that is nearest: that of a test goes before that of its file.
    return found[0] if found and item.get_closest_marker(SAMPLE) is None else _EVERYDAY


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another target runs, when everybody has set his markers; order what is left."""
    if not any(".py" in argument for argument in config.args):  # files that are named have an order
        items.sort(key=_turns(items))
    wanted = config.getoption("--target")
    if wanted == _ALL or _names_tests(config.args):
        return
    kept = [item for item in items if target_of(item) == wanted]
    config.hook.pytest_deselected(items=[item for item in items if target_of(item) != wanted])
    # The file whose tests may take longest has to begin first: a target takes as long as that one at least.
    longest_s: dict[Path, float] = {}
    for item in kept if wanted != _EVERYDAY else ():
        longest_s[item.path] = max(_patience_s(item), longest_s.get(item.path, 0.0))
    items[:] = sorted(kept, key=lambda item: -longest_s.get(item.path, 0.0))


def _patience_s(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


def _turns(items: Sequence[pytest.Item]) -> Callable[[pytest.Item], tuple[int, int]]:
    """Say when each test has its turn: with its folder, after as many files of it as of those beside it."""
    rank = {name: number for number, names in enumerate(FIRST) for name in names}
    folders: dict[Path, dict[Path, int]] = {}
    for item in items:
        files = folders.setdefault(item.path.parent, {})
        files.setdefault(item.path, len(files))

    def turn(item: pytest.Item) -> tuple[int, int]:
        folder = item.path.parent
        return rank.get(folder.name, len(FIRST)), folders[folder][item.path]

    return turn


def _names_tests(arguments: Sequence[str]) -> bool:
    return any("::" in argument for argument in arguments)
