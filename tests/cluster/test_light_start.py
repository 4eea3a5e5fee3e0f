"""What a transfer may never need is not loaded before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from fink_dask.cli.main import COMMANDS
from fink_dask.kafka.offsets import OffsetRange
from tests.harness.ledgers import make_plan, make_whole


def run_python(code: str) -> Any:
    """Run code in a Python of its own; return what it prints as JSON last."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_starts_a_transfer_loads_no_compiler_no_pandas_and_no_dashboard() -> None:
    loaded = loaded_by("import fink_dask.running.run")
    assert "distributed" in loaded
    assert {"numba", "llvmlite", "pandas", "bokeh", "fastavro", "matplotlib", "pyarrow.compute"} & loaded == set()


#: What takes longer to load than all that the program says by itself.
HEAVY = {
    *("asyncio", "bokeh", "confluent_kafka", "dask", "distributed", "erfa", "fastavro", "multiprocessing", "numba"),
    *("numpy", "pandas", "pyarrow", "rich", "yaml"),
}


def loaded_by(code: str) -> set[str]:
    """Return what Python has loaded once it has run some code."""
    ended = """
        import json, sys
        print()
        print(json.dumps(sorted(sys.modules)))
    """
    return set(run_python(textwrap.dedent(code) + textwrap.dedent(ended)))


def test_help_of_every_command_is_quick_because_nothing_heavy_is_loaded() -> None:
    loaded = loaded_by(
        """
        from fink_dask.cli.main import cli, main
        for command in ([], *([name] for name in cli.commands)):
            try:
                main([*command, "--help"])
            except SystemExit as end:
                assert not end.code
        """
    )
    assert HEAVY & loaded == set()


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["--help"], None),
        (["--version"], None),
        (["trasnfer"], None),
        (["transfer", "--help"], "transfer"),
        (["transfer", "--outformat", "fits"], "transfer"),
        (["transfer", "--partition", "time"], "transfer"),
    ],
)
def test_help_and_what_is_typed_wrong_are_answered_without_the_other_commands(
    typed: list[str], command: str | None
) -> None:
    loaded = loaded_by(
        f"""
        from fink_dask.cli.main import main
        try:
            main({typed})
        except SystemExit:
            pass
        """
    )
    assert HEAVY & loaded == set()
    assert commands_of(loaded) == ({command} if command else set())


@pytest.mark.parametrize(("typed", "command"), [("fink-dask tra", None), ("fink-dask transfer --part", "transfer")])
def test_each_tab_of_a_shell_loads_no_more_than_the_command_that_is_typed(typed: str, command: str | None) -> None:
    loaded = loaded_by(
        f"""
        import os
        os.environ |= {{"_FINK_DASK_COMPLETE": "bash_complete", "COMP_WORDS": "{typed}"}}
        os.environ["COMP_CWORD"] = "{len(typed.split()) - 1}"
        from fink_dask.cli.main import main
        try:
            main([])
        except SystemExit:
            pass
        """
    )
    assert HEAVY & loaded == set()
    assert commands_of(loaded) == ({command} if command else set())


def commands_of(loaded: set[str]) -> set[str]:
    """Choose the commands from what is loaded; that for shells is there before any of them."""
    names = {name.replace("-", "_") for name in COMMANDS} - {"completion"}
    return {name for name in names if f"fink_dask.cli.{name}" in loaded}


def test_the_package_loads_nothing_before_one_of_its_functions_is_asked_for() -> None:
    loaded = run_python(
        """
        import json, sys
        import fink_dask
        before = {name.partition(".")[0] for name in sys.modules}
        assert callable(fink_dask.open_dataset)
        print(json.dumps([sorted(before), "pyarrow" in sys.modules]))
        """
    )
    before, has_arrow = loaded
    assert {"click", "dask", "numpy", "pyarrow", "yaml"} & set(before) == set()
    assert has_arrow


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("status", {"confluent_kafka", "dask", "numba", "pandas", "pyarrow.compute"}),
        ("read", {"confluent_kafka", "dask", "numba", "pandas", "rich"}),
        ("lightcurve", {"confluent_kafka", "dask", "numba", "pandas"}),
    ],
)
def test_what_looks_at_a_dataset_loads_neither_pandas_nor_what_fills_one(
    tmp_path: Path, command: str, heavy: set[str]
) -> None:
    ledger = make_whole(tmp_path / "alerts", [make_plan([OffsetRange(5, 0, 100)])])
    loaded = loaded_by(
        f"""
        from fink_dask.cli.main import main
        try:
            main(["{command}", "{ledger.outdir}"])
        except SystemExit as end:
            assert not end.code or "{command}" == "lightcurve"  # which finds no objects
        """
    )
    assert "pyarrow" in loaded
    assert heavy & loaded == set()


DASHBOARD = """
    import json, logging, sys, urllib.error, urllib.request
    from concurrent.futures import ThreadPoolExecutor
    from fink_dask.cluster.local import local_cluster
    from tests.harness.topics import PATIENCE_S

    def visit(path):
        try:
            with urllib.request.urlopen(base + path, timeout=60) as answer:
                return answer.status, answer.geturl(), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, path, ""

    def bokeh():
        return "bokeh" in sys.modules

    if __name__ == "__main__":
        seen = {}
        with local_cluster(1, 1, "127.0.0.1:0") as cluster:
            base = cluster.client.dashboard_link.removesuffix("/status")
            seen["before"] = bokeh()
            seen["health"], seen["metrics"] = visit("/health")[0], visit("/metrics")[0]
            seen["info"] = visit("/info/main/workers.html")[0]
            seen["after_metrics"] = bokeh()
            assert cluster.client.submit(sum, [1, 2]).result(PATIENCE_S) == 3
            seen["after_work"] = bokeh()
            with ThreadPoolExecutor(3) as threads:
                visits = list(threads.map(visit, ["/status", "/", "/workers"]))
            seen["visits"] = [(status, "bokeh" in text.lower()) for status, _, text in visits]
            seen["where"] = [where.removeprefix(base) for _, where, _ in visits]
            seen["after_visit"] = bokeh()
            seen["again"] = visit("/status")[0]
            seen["nowhere"] = visit("/no-such-page")[0]
            seen["health_again"] = visit("/health")[0]
            assert cluster.client.submit(sum, [3, 4]).result(PATIENCE_S) == 7
        print(json.dumps(seen))
"""


@pytest.mark.commands
def test_the_dashboard_is_loaded_by_its_first_visitors_and_then_is_there() -> None:
    seen = run_python(DASHBOARD)
    assert (seen["before"], seen["after_metrics"], seen["after_work"]) == (False, False, False)
    assert (seen["health"], seen["metrics"], seen["info"]) == (200, 200, 200)
    assert seen["visits"] == [[200, True]] * 3
    assert seen["where"] == ["/status", "/status", "/workers"]
    assert seen["after_visit"]
    assert (seen["again"], seen["health_again"], seen["nowhere"]) == (200, 200, 404)


def test_who_compiles_at_each_start_is_told_how_to_keep_it() -> None:
    """As where neither the code nor the user's home can be written, in a container or a batch job."""
    code = """
        from numba.core import caching
        if {nowhere}: getattr(caching, "CacheImpl", caching.__dict__.get("_CacheImpl"))._locator_classes = []
        import fink_dask.avro.kernels as warm_up
        from fink_dask.cluster.forkserver import prepare_decoder
        warm_up.is_compiled, warm_up.warm_up = (lambda: False), (lambda: 0.0)
        prepare_decoder()
    """
    said = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code.format(nowhere=nowhere))],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stderr
        for nowhere in (False, True)
    ]
    assert ("once" in said[0], said[0].count("\n")) == (True, 1)
    assert "NUMBA_CACHE_DIR" in said[1]
