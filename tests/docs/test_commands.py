"""A reader types what the documentation prints: every command and every Python block in it is run."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest

from benchmarks.__main__ import main as bench
from benchmarks.catalog import main as bench_catalog
from benchmarks.links import main as bench_links
from benchmarks.night import main as bench_night
from fink_dask.cli.main import cli
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.alerts_once import alerts_once
from tests.harness.cli import environment
from tests.harness.environments import Distributions, write_locked
from tests.harness.kafka_archive import archive_of_apache
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.oracle import fill_topic
from tests.harness.predictions import predictions_of
from tests.harness.producer import produce
from tests.harness.targets import TARGETS
from tests.harness.topics import create_topic, delete_topic, name_topic, remove_topics, topic_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"),
        *(ROOT / "deploy").rglob("*.md"),
        *(ROOT / "docs").glob("*.md"),
    ]
)
# The last one needs alerts with cutouts that are images: tests/readers runs it.
EXAMPLES = {"transfer_in_python.py", "read_dataset.py", "show_cutout.py"}

#: The topic that the documentation transfers; the tests put one of their own in its place.
TOPIC_IN_DOCS = "ftransfer_ztf_2026-02-24_123456"
#: The predictions of its alerts.
PREDICTIONS_IN_DOCS = "fink_ai_2026-02-24_123456"
#: A pattern that matches it; the one that the tests put in its place matches no topic of other tests.
PATTERN_IN_DOCS = "ftransfer_ztf_2026-02-*"
#: The place on an object store that the documentation writes to; each page has one of its own in the tests.
PLACE_IN_DOCS = "s3://my-bucket/nights"
ALERTS = 400
RUN = {"console", "sh", "python"}
NOT_RUN = {"text", "json", "toml"}

#: Stand in for programs on a reader's PATH. What would run these tests again, or change this checkout, is not run in
#: full: a make target is looked up, and pytest collects. Both fail for what is not there.
STAND_INS = {
    "fink-dask": 'exec "{python}" -m fink_dask "$@"',
    "python": """\
if [ "${{1:-}} ${{2:-}}" = "-m pytest" ]; then
    shift 2; cd "{root}"; exec "{python}" -m pytest --collect-only --quiet "$@"
fi
exec "{python}" "$@\"""",
    "python3": 'exec "{python}" "$@"',
    "make": """\
case "$*" in
    demo) exec fink-dask demo --alerts 500 ;;
    "") exec "{make}" -C "{root}" ;;
    *) exec "{make}" -C "{root}" --dry-run "$@" ;;
esac""",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the kind of alerts that it is for; empty if it is for any."""

    line: int
    language: str
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Step:
    """Something to run, and the exit status that the page gives it."""

    line: int
    words: list[str]
    status: int


def blocks(page: str) -> list[Block]:
    """Find the fenced blocks; one that is indented or never closed is an error."""
    fenced = re.compile(r"""(?:^<details class="([\w-]+)".*\n\n)?^```(.*)\n((?s:.*?))^```$""", re.MULTILINE)
    found = [
        Block(page.count("\n", 0, match.start(2)) + 1, match[2], match[3], match[1] or "")
        for match in fenced.finditer(page)
    ]
    fences = [line for line in page.splitlines() if line.lstrip().startswith(("```", "~~~"))]
    assert len(fences) == 2 * len(found), "a fence is indented, or not closed"
    return found


def steps(page: str) -> list[Step]:
    """List what a page asks its reader to run, in order; of what it has for each kind, what is for light ZTF alerts."""
    found: list[Step] = []
    for block in blocks(page):
        if block.kind not in {"", AlertKind.ZTF_LIGHT}:
            continue
        assert block.language in RUN | NOT_RUN, f"line {block.line}: is {block.language!r} to be run or not?"
        if block.language == "python":
            found.append(Step(block.line, ["python", "-c", block.text], 0))
        elif block.language == "sh":
            found.append(shell(block.line, f"set -e\n{block.text}"))
        elif block.language == "console":
            found += console(block)
        else:
            assert not re.search(r"^(\$ |fink-dask |make )", block.text, re.MULTILINE), (
                f"line {block.line}: a command in a block that is not run"
            )
    return found


def console(block: Block) -> list[Step]:
    """Take the commands out of a block; ``echo $?`` and what it shows say how the one before ends."""
    lines = block.text.splitlines()
    assert block.text.startswith("$ "), f"line {block.line}: a console block begins with a command"
    found: list[Step] = []
    for number, line in enumerate(lines):
        if line == "$ echo $?":
            found[-1] = Step(found[-1].line, found[-1].words, int(lines[number + 1]))
        elif line.startswith("$ "):
            assert not line.endswith("\\"), f"line {block.line}: a command of more than one line belongs in a sh block"
            found.append(shell(block.line + 1 + number, line.removeprefix("$ ")))
    return found


def shell(line: int, command: str) -> Step:
    return Step(line, ["bash", "-o", "pipefail", "-c", command], 0)


@pytest.fixture
def topic(kafka: Any) -> Iterator[str]:
    """Yield a topic that stands in for the one in the documentation."""
    name = name_topic()
    fill_topic(kafka.bootstrap_servers, name, AlertKind.ZTF_LIGHT, ALERTS, partitions=3)
    yield name
    # A page may publish topics of its own, whose names begin with this one.
    for each in topic_names(kafka.bootstrap_servers):
        if each.startswith((name, name.replace("ftransfer_ztf_", "fink_ai_"))):
            delete_topic(kafka.bootstrap_servers, each, missing_ok=True)


def predict(bootstrap: str, topic: str) -> str:
    """Make a topic of predictions of the alerts in a topic, and return its name."""
    name = topic.replace("ftransfer_ztf_", "fink_ai_")
    create_topic(bootstrap, name, 1)
    alerts = alerts_once(AlertKind.ZTF_LIGHT, ALERTS, 0, 0)
    schema = fastavro.parse_schema(avro_schema(AlertKind.ZTF_LIGHT))
    candids = [fastavro.schemaless_reader(BytesIO(value), schema)["candid"] for value in alerts]
    produce(bootstrap, name, predictions_of(candids))
    return name


@pytest.fixture(scope="session")
def from_an_index(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what makes ``pip install fink-dask`` install this checkout, as if it were released, and what is locked."""
    return {
        "PIP_FIND_LINKS": f"{built.wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}",
        "PIP_CONSTRAINT": str(write_locked(tmp_path_factory.mktemp("index") / "locked.txt")),
    }


@pytest.fixture
def reader(tmp_path: Path, kafka: Any, object_store: ObjectStore) -> dict[str, str]:
    """Return the environment of somebody who reads the documentation in a clone with ``.venv/bin`` in the PATH.

    The first page makes an environment of its own, ``env``, and goes on with that. What its ``pip`` installs is
    `from_an_index`, which takes seconds to build.
    """
    make = shutil.which("make")
    assert make is not None
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in STAND_INS.items():
        program = programs / name
        program.write_text("#!/bin/bash\n" + script.format(python=sys.executable, root=ROOT, make=make) + "\n")
        program.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    made = environment(
        {
            **object_store.environment,
            "FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0",
            "HOME": str(home),
            "PATH": os.pathsep.join([str(tmp_path / "env" / "bin"), str(programs), os.environ["PATH"]]),
        }
    )
    # Where make runs these tests, its flags are not a reader's.
    return {name: value for name, value in made.items() if not name.startswith(("MAKE", "MFLAGS", "SLURM", "PYTEST"))}


@pytest.mark.docs
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.sample) if path == ROOT / "README.md" else path for path in PAGES],
    ids=[str(path.relative_to(ROOT)) for path in PAGES],
)
def test_what_a_page_prints_works_when_a_reader_types_it(
    path: Path, topic: str, reader: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for folder in ("docs", "examples", "deploy"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    if path.name == "start.md":  # its reader has a clone in another folder
        clone = tmp_path / "fink-dask"
        for folder in ("fink_dask", "examples"):
            shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, clone)
    for file in (tmp_path / "examples").glob("*.toml"):
        file.write_text(file.read_text().replace(TOPIC_IN_DOCS, topic))
    page = path.read_text().replace(TOPIC_IN_DOCS, topic).replace(PATTERN_IN_DOCS, f"{topic}*")
    if path.name == "finkai.md":
        page = page.replace(PREDICTIONS_IN_DOCS, predict(reader["FINK_DASK_BOOTSTRAP_SERVERS"], topic))
    with ExitStack() as stack:
        if path.name == "practice.md":
            page = page.replace(
                "localhost:9092", stack.enter_context(archive_of_apache(tmp_path / ".venv" / "bin", tmp_path))
            )
        asked = steps(page.replace(PLACE_IN_DOCS, f"s3://{BUCKET}/{topic}"))
        if any("pip install" in step.words[-1] for step in asked):
            reader |= request.getfixturevalue("from_an_index")
        for step in asked:
            ended = subprocess.run(
                step.words, cwd=tmp_path, env=reader, capture_output=True, text=True, input="", timeout=300, check=False
            )
            assert ended.returncode == step.status, (
                f"{path.relative_to(ROOT)}, line {step.line}: {step.words[-1]}\n"
                f"ended with {ended.returncode}, not {step.status}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
            )


@pytest.mark.docs
@pytest.mark.parametrize(
    "page",
    [
        "```console\n$ fink-dask transfer --no-such-option\n```\n",
        "```console\n$ make no-such-target\n```\n",
        "```sh\nfalse\ntrue\n```\n",
        "```console\n$ false | true\n```\n",
        "```console\n$ .venv/bin/python -m pytest tests/no_such_file.py\n```\n",
        "```python\nimport no_such_module\n```\n",
    ],
)
def test_a_command_that_does_not_work_is_noticed(page: str, reader: dict[str, str], tmp_path: Path) -> None:
    (step,) = steps(page)
    ended = subprocess.run(step.words, cwd=tmp_path, env=reader, capture_output=True, timeout=300, check=False)
    assert ended.returncode != step.status


@pytest.mark.parametrize(
    "page",
    [
        "```\nfink-dask transfer\n```\n",
        "```text\n$ fink-dask transfer\n```\n",
        "```bash\nfink-dask transfer\n```\n",
        "- a list\n  ```console\n  $ fink-dask transfer\n  ```\n",
        "```console\nfink-dask transfer\n```\n",
    ],
)
def test_a_command_can_not_hide_in_a_block_that_is_not_run(page: str) -> None:
    with pytest.raises(AssertionError):
        steps(page)


def test_the_published_command_is_in_the_readme_letter_for_letter() -> None:
    published = (
        f"fink-dask transfer -topic {TOPIC_IN_DOCS} -outdir alerts -partitionby time -nconsumers 5 -batchsize 1000"
    )
    assert f"$ {published}\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_options_that_exist_and_links_only_to_what_is_there(path: Path) -> None:
    page = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    if path.name == "moving-from-fink-client.md":
        page = re.sub(r"^\|[^|]*\|", "|", page, flags=re.MULTILINE)  # its first column is of fink-client's options
    commands = (cli, *cli.commands.values(), bench, bench_links, bench_night, bench_catalog)
    known = {name for command in commands for option in command.params for name in option.opts}
    named = {
        flag.replace("_", "-")
        for code in re.findall(r"`([^`]+)`", page)
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
    }
    assert named - known - {"--help"} == set()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page) if "://" not in link]
    assert [link for link in links if link and not (path.parent / link).exists()] == []


def anchors(path: Path) -> set[str]:
    """Name the headings of a page as its links do."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_into_a_page_leads_to_a_heading_that_is_there(path: Path) -> None:
    found = re.findall(r"\]\(([\w./-]*\.md)?#([^)]+)\)", path.read_text())
    assert [(page, name) for page, name in found if name not in anchors(path.parent / page if page else path)] == []


def script(name: str) -> Any:
    """Load what makes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_reference_is_what_the_code_says() -> None:
    module = script("make_reference")
    assert module.REFERENCE.read_text() == module.reference(), "run: python docs/make_reference.py"


def test_the_lines_for_each_kind_are_those_of_the_command_and_are_on_the_pages() -> None:
    module = script("make_reading")
    for path in module.PAGES:
        assert path.read_text() == module.filled(path.read_text()), "run: python docs/make_reading.py"
    for path in PAGES:
        known = Counter(block.kind for block in blocks(path.read_text()) if block.kind)
        assert len({known[kind] for kind in AlertKind}) == 1
        assert known.keys() <= set(AlertKind)
        assert bool(known) == (path in module.PAGES)


#: Runs blocks as a reader does one after the other, each with names of its own, in one process: LSDB is slow to load.
EACH_BLOCK = """
import json, sys
for place, block in json.load(sys.stdin):
    print(place, flush=True)
    exec(compile(block, place, "exec"), {"__name__": "__main__"})
"""


@pytest.mark.docs
@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_an_example_says_in_a_line_what_is_not_there(example: str, kafka: Any, tmp_path: Path) -> None:
    given = [kafka.bootstrap_servers, "no_such_topic"] if example == "transfer_in_python.py" else []
    command = [sys.executable, str(ROOT / "examples" / example), *given, "nowhere"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert not ended.stdout
    assert ("no_such_topic" if given else "nowhere") in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.docs
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", list(AlertKind), ids=lambda kind: kind.value)
def test_what_a_page_prints_for_a_kind_of_alerts_works_for_them(
    kind: AlertKind, kafka: Any, reader: dict[str, str], tmp_path: Path
) -> None:
    name = name_topic(kind)
    fill_topic(kafka.bootstrap_servers, name, kind, 60, partitions=3)
    printed = [
        (f"{path.name}, line {block.line}", re.sub(r"ftransfer_\w+_2026-02-24_123456", name, block.text))
        for path in PAGES
        for block in blocks(path.read_text())
        if block.kind == kind
    ]
    try:
        for command in (
            ["-m", "fink_dask", "transfer", "--topic", name, "--outdir", "alerts", "--partitionby", "time"],
            ["-m", "fink_dask", "export-hats", "alerts", "catalog"],
            *([["-m", "fink_dask", "export-hats", "alerts", "with-history", "--history"]] if "full" in kind else []),
            ["-c", EACH_BLOCK],
        ):
            ended = subprocess.run(
                [sys.executable, *command],
                cwd=tmp_path,
                env=reader,
                input=json.dumps(printed),
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr[-3000:]
        assert all(place in ended.stdout for place, _ in printed)
    finally:
        remove_topics(kafka.bootstrap_servers, name)


@pytest.mark.docs
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", list(AlertKind), ids=lambda kind: kind.value)
def test_the_examples_and_the_light_curves_are_for_every_kind_of_alerts(
    kind: AlertKind, kafka: Any, reader: dict[str, str], tmp_path: Path
) -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == EXAMPLES
    name = name_topic(kind)
    fill_topic(kafka.bootstrap_servers, name, kind, 40, partitions=3)
    try:
        (on_the_page,) = (
            block.text for block in blocks((ROOT / "docs/start.md").read_text()) if block.language == "python"
        )
        cells = json.loads((ROOT / "examples" / "light_curve.ipynb").read_text())["cells"]
        # The last cell draws in a notebook alone.
        *in_the_notebook, _ = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for arguments in (
            [str(ROOT / "examples" / "transfer_in_python.py"), kafka.bootstrap_servers, name, "alerts"],
            [str(ROOT / "examples" / "read_dataset.py"), "alerts"],
            ["-c", on_the_page],
            [
                "-c",
                "\n".join(
                    [*in_the_notebook, "assert len(curve) and None not in curve['mjd'].to_pylist(); print(name)"]
                ),
            ],
        ):
            ended = subprocess.run(
                [sys.executable, *arguments],
                cwd=tmp_path,
                env=reader | {"FINK_DASK_TOPIC": name},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout
    finally:
        remove_topics(kafka.bootstrap_servers, name)


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_the_ten_minutes_end_with_a_light_curve_in_a_notebook_and_a_report(
    topic: str, reader: dict[str, str], from_an_index: dict[str, str], tmp_path: Path
) -> None:
    reader |= from_an_index
    script = [str(ROOT / "examples" / "ten_minutes.sh"), topic, "path"]
    ended = subprocess.run(
        script, cwd=tmp_path, env=reader, capture_output=True, text=True, input="", timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    notebook = json.loads((tmp_path / "path" / "light_curve.ipynb").read_text())
    *_, table, drawn = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert any("value" in "".join(output["data"]["text/plain"]) for output in table["outputs"] if "data" in output)
    assert any("application/vnd.bokehjs_exec.v0+json" in output.get("data", {}) for output in drawn["outputs"])
    assert topic in (tmp_path / "path" / "report.html").read_text()
    # As it stands in the repository it has not been run: no results of ours, and no path of a machine.
    kept = json.loads((ROOT / "examples" / "light_curve.ipynb").read_text())
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in kept["cells"])


def test_every_fault_of_the_reliability_page_has_the_tests_that_it_names() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    everyday: dict[str, bool] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name, is_everyday in everyday_tests(path).items():
            everyday[name] = is_everyday or everyday.get(name, False)
    named = re.findall(r"`(test_\w+)`(\*?)", page)
    assert [name for name, _ in named if name not in everyday] == []
    # An asterisk is for those that `make test` leaves to another target.
    assert [name for name, star in named if bool(star) == everyday[name]] == []
    rows = {int(match[1]): match[0] for match in re.finditer(r"^\| (\d+) \|.*$", page, re.MULTILINE)}
    assert set(rows) == set(range(1, 32))
    assert [row for row, text in rows.items() if not re.search(r"`test_\w+`(?!\*)", text)] == []


def everyday_tests(path: Path) -> dict[str, bool]:
    """List the tests of a file, and whether `make test` runs them, or one of their parameters."""
    source = path.read_text()
    module = ast.parse(source)
    marks = [
        ast.get_source_segment(source, node.value) or ""
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    found: dict[str, bool] = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            own = [ast.unparse(decorator) for decorator in node.decorator_list]
            is_targets = path.parent.name == "batch" or any(
                re.match(rf"\[?pytest\.mark\.({'|'.join(TARGETS)})\b", text) for text in [*marks, *own]
            )
            found[node.name] = not is_targets or any("mark.sample" in text for text in own)
    return found
