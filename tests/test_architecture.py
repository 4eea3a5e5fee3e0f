"""The imports and the shape of the code are those of docs/design.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from fink_dask import errors
from fink_dask.api.settings import ARGUMENTS

PACKAGE = Path(__file__).resolve().parents[1] / "fink_dask"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 700

#: What each room may import besides itself.
ROOMS = {
    "errors": set(),
    "units": {"errors"},
    "settings": {"errors", "units"},
    "batches": set(),
    "compiling": set(),
    "kafka": {"compiling", "batches", "settings", "errors", "units"},
    "avro": {"compiling", "batches", "errors"},
    "store": {"errors"},
    "ledger": {"store", "avro", "kafka", "settings", "errors", "units"},
    "dataset": {"ledger", "store", "avro", "kafka", "batches", "settings", "errors", "units"},
    "where": {"dataset", "avro", "errors"},
    "compaction": {"dataset", "ledger", "store", "avro", "kafka", "settings", "errors", "units"},
    "joining": {"dataset", "ledger", "avro", "kafka", "settings", "errors"},
    "progress": {"ledger", "kafka", "errors", "units"},
    "ranges": {"progress", "where", "dataset", "ledger", "avro", "kafka", "batches", "settings", "errors", "units"},
    "planning": {
        *("ranges", "progress", "where", "dataset", "ledger", "store", "avro", "kafka"),
        *("settings", "errors", "units"),
    },
    "following": {"planning", "ranges", "progress", "ledger", "kafka", "settings", "errors"},
    "dashboard": {"progress", "ledger", "errors", "units"},
    "cluster": {"dashboard", "ranges", "progress", "ledger", "store", "avro", "kafka", "settings", "errors", "units"},
    "running": {
        *("cluster", "compaction", "dashboard", "following", "planning", "ranges", "progress", "joining", "ledger"),
        "kafka",
        *("settings", "errors", "units"),
    },
    "verifying": {
        *("running", "cluster", "dashboard", "planning", "ranges", "progress", "compaction", "where", "dataset"),
        *("ledger", "store", "avro", "kafka"),
        *("batches", "settings", "errors", "units"),
    },
    "lightcurves": {"dataset", "avro", "errors"},
    "catalog": {"lightcurves", "dataset", "ledger", "store", "avro", "errors"},
    "export": {"where", "dataset", "ledger", "store", "avro", "settings", "errors"},
    "doctor": {"cluster", "planning", "ranges", "ledger", "store", "avro", "kafka", "settings", "errors", "units"},
    "demo": {"avro", "kafka", "settings", "errors"},
    "show": {"planning", "ranges", "progress", "dataset", "ledger", "kafka", "settings", "errors", "units"},
    "report": {"progress", "lightcurves", "dataset", "ledger", "store", "avro", "kafka", "errors", "units"},
    "api": {
        *("show", "verifying", "running", "cluster", "planning", "ranges", "progress", "dataset", "ledger"),
        *("store", "avro", "kafka"),
        *("settings", "errors", "units"),
    },
    "cli": {
        *(
            "report",
            "show",
            "demo",
            "doctor",
            "catalog",
            "export",
            "lightcurves",
            "verifying",
            "running",
            "cluster",
            "planning",
        ),
        *("progress", "compaction", "where", "dataset", "ledger", "store", "avro", "kafka"),
        *("settings", "errors", "units"),
    },
    "__main__": {"cli"},
    "__init__": {"api", "dataset", "errors", "lightcurves"},
}

#: The only importers of an outside library, as modules or rooms.
IMPORTERS = {
    "astropy": {"dataset.cutouts", "export.formats"},
    "bokeh": {"dashboard.page", "report.charts", "report.curve", "report.page"},
    "botocore": {"store.service"},
    "click": {"cli"},
    "confluent_kafka": {"kafka.confluent"},
    "dask": {"api", "cluster", "dashboard", "running.scheduling"},
    "dask_jobqueue": {"cluster.jobspec"},
    "distributed": {"api", "cluster", "dashboard", "running.merging", "running.scheduling"},
    "jinja2": {"dashboard.page", "report.page"},
    "obstore": {"store.bucket", "store.service"},
    "llvmlite": {"compiling"},
    "numba": {"compiling"},
    "fastavro": {"avro", "demo"},
    "pandas": {"api"},
    "cdshealpix": {"catalog.sky"},
    "hats": {"catalog"},
    "PIL": {"dataset.cutouts"},
    "rich": {"cli", "doctor.machine", "report", "show"},
    "prometheus_client": {"dashboard.metrics"},
    "tornado": {"dashboard.plugin", "dashboard.page"},
    "yaml": {"kafka.credentials"},
}
ANYWHERE = {"erfa", "numpy", "pyarrow"}

#: What a room never knows, whatever it may import else: rooms and libraries.
FENCES = {
    "avro": {"confluent_kafka", "fink_dask.kafka"},
    "ranges": {"dask", "distributed", "fink_dask.cluster", "fink_dask.running"},
    "planning": {"dask", "distributed", "fink_dask.cluster", "fink_dask.running"},
}

#: Files of commands, which the design does not list.
_COMMANDS = {
    *("compact", "completion", "cutouts", "demo", "doctor", "example", "export"),
    *("export_hats", "hand_over", "lightcurve", "peek", "publish", "quarantine", "read", "register"),
    *("repair", "report", "schema", "season", "status", "submit", "topics", "transfer"),
    *("verify",),
}

ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type)}

#: A name that says nothing about what is inside.
BAD_NAMES = {"common", "core", "helpers", "misc", "util", "utils"}


def name_of(path: Path) -> str:
    """Name a module without the package's name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Find every module that is imported, wherever in the file, from the package as ``fink_dask.room.module``."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            assert node.module is not None
            names = node.module in {"fink_dask", *(f"fink_dask.{room}" for room in ROOMS)}
            found.update(f"{node.module}.{alias.name}" for alias in node.names) if names else found.add(node.module)
    return frozenset(found)


def faults(of: Callable[[Path], object], modules: Sequence[Path] = MODULES) -> dict[str, object]:
    """Say what is wrong with each module that something is wrong with."""
    return {name_of(path): found for path in modules if (found := of(path))}


def test_imports_go_down_the_rooms() -> None:
    def upward(path: Path) -> set[str]:
        room = name_of(path).partition(".")[0]
        assert room in ROOMS, f"{room} is no room of docs/design.md"
        inside = {module.split(".")[1] for module in imports(path) if module.startswith("fink_dask.")}
        return inside - ROOMS[room] - {room, "__version__"}

    assert faults(upward) == {}


def test_a_library_is_imported_where_it_belongs() -> None:
    def misplaced(path: Path) -> set[str]:
        name = name_of(path)
        outside = {module.partition(".")[0] for module in imports(path)} - sys.stdlib_module_names - {"fink_dask"}
        places = {name, name.partition(".")[0]}
        return {library for library in outside - ANYWHERE if not places & IMPORTERS.get(library, set())}

    assert faults(misplaced) == {}


def test_a_module_says_what_it_is_and_stays_small() -> None:
    assert faults(lambda path: not ast.get_docstring(tree_of(path))) == {}
    assert faults(lambda path: path.read_text().count("\n") > MAX_LINES) == {}
    assert faults(lambda path: BAD_NAMES & set(name_of(path).split("."))) == {}


def test_only_the_command_line_speaks_and_it_uses_click() -> None:
    def printed(path: Path) -> list[int]:
        nodes = ast.walk(tree_of(path))
        return [node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == "print"]

    assert faults(printed) == {}


@pytest.mark.parametrize("room", FENCES)
def test_a_room_knows_nothing_of_what_is_fenced_off(room: str) -> None:
    for path in (PACKAGE / room).glob("*.py"):
        known = {".".join(module.split(".")[:depth]) for module in imports(path) for depth in (1, 2)}
        assert not FENCES[room] & known, f"{name_of(path)} imports {sorted(FENCES[room] & known)}"


def test_only_the_store_knows_what_kind_of_store_it_is() -> None:
    own = {"fink_dask.store.objects", "fink_dask.store.remote"}
    assert faults(lambda path: not name_of(path).startswith("store.") and imports(path) & own) == {}


def test_every_dependency_is_argued_for() -> None:
    design = (PACKAGE.parent / "docs" / "design.md").read_text()
    project = (PACKAGE.parent / "pyproject.toml").read_text()
    names = ast.literal_eval(project.partition("dependencies = ")[2].partition("]")[0] + "]")
    section = design.partition("## Dependencies")[2].partition("\n## ")[0].lower()
    assert [name for name in names if name.partition(">")[0].lower() not in section] == []


def test_what_contributors_are_told_of_where_things_are_is_there() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`(fink_dask/[\w/]+\.py)`", text))
    assert text.count("| `fink_dask/") >= 20
    assert [name for name in sorted(named) if not (PACKAGE.parent / name).is_file()] == []


def rooms_of_the_design() -> dict[str, list[str]]:
    """Read the table of rooms: the modules that stand beside each, in the order of the table."""
    design = (PACKAGE.parent / "docs" / "design.md").read_text()
    section = design.partition("## Rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)/` \| [^|]+ \| ([^|]+) \|$", section, flags=re.M)
    return {room: re.findall(r"`(\w+)`", modules) for room, modules in rows}


def test_the_rooms_of_the_design_name_each_module_once_and_none_that_is_not_there() -> None:
    there: dict[str, list[str]] = {room: [] for room in rooms_of_the_design()}
    for path in MODULES:
        room = path.parent.name
        if path.parent == PACKAGE or path.stem == "__init__" or (room == "cli" and path.stem in _COMMANDS):
            continue
        there[room].append(path.stem)
    assert {room: sorted(named) for room, named in rooms_of_the_design().items()} == {
        room: sorted(modules) for room, modules in there.items()
    }


def test_the_rooms_of_the_design_stand_after_those_they_use() -> None:
    order = list(rooms_of_the_design())
    files = {"batches", "compiling", "settings", "errors", "units"}
    assert set(order) == ROOMS.keys() - files - {"__main__", "__init__"}
    for position, room in enumerate(order):
        assert ROOMS[room] - files <= set(order[:position])


def test_no_room_may_use_what_it_does_not() -> None:
    for room, allowed in ROOMS.items():
        used = {
            module.split(".")[1]
            for path in MODULES
            if name_of(path).partition(".")[0] == room
            for module in imports(path)
            if module.startswith("fink_dask.")
        }
        assert allowed <= used, f"{room} does not use {sorted(allowed - used)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    # Without the package itself, which has its names from where they are made, when they are asked for.
    known = {f"fink_dask.{name_of(path)}".removesuffix(".__init__"): path for path in MODULES if path.parent != PACKAGE}
    graph = {}
    for name, path in known.items():
        found = imports(path)
        graph[name] = {module for module in known if module in found and module != name}
    TopologicalSorter(graph).prepare()


def test_an_error_names_what_python_has_too_so_that_each_user_reads_their_own_words() -> None:
    """Where an argument has an option's name, `errors.parameter` names it, and the front end spells it."""
    arguments = re.compile(rf"(?<!register )(?<!transfer )--({'|'.join(sorted(ARGUMENTS)).replace('_', '-')})(?![\w-])")

    def spelled(path: Path) -> list[str]:
        raised = [
            node
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS
        ]
        words = [each.value for call in raised for each in ast.walk(call) if isinstance(each, ast.Constant)]
        return [word for word in words if isinstance(word, str) and arguments.search(word)]

    assert faults(spelled, [path for path in MODULES if name_of(path).partition(".")[0] != "cli"]) == {}
