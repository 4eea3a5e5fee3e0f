"""What a transfer may never need is not loaded before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest


def run_python(code: str) -> Any:
    """Run code in a Python of its own; return what it prints as JSON last."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_starts_a_transfer_loads_no_compiler_no_pandas_and_no_dashboard() -> None:
    loaded = run_python(
        """
        import json, sys
        import fink_dask.running.run
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
        """
    )
    assert "distributed" in loaded
    assert {"numba", "llvmlite", "pandas", "bokeh", "fastavro", "matplotlib"} & set(loaded) == set()


def test_help_of_every_command_is_quick_because_nothing_heavy_is_loaded() -> None:
    loaded = run_python(
        """
        import json, sys
        from fink_dask.cli.main import cli, main
        for command in ([], *([name] for name in cli.commands)):
            try:
                main([*command, "--help"])
            except SystemExit as end:
                assert not end.code
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
        """
    )
    heavy = {
        "bokeh",
        "confluent_kafka",
        "dask",
        "distributed",
        "erfa",
        "fastavro",
        "numba",
        "numpy",
        "pandas",
        "pyarrow",
    }
    assert heavy & set(loaded) == set()


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


DASHBOARD = """
    import json, logging, sys, urllib.error, urllib.request
    from concurrent.futures import ThreadPoolExecutor
    from fink_dask.cluster.local import local_cluster

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
            assert cluster.client.submit(sum, [1, 2]).result(30) == 3
            seen["after_work"] = bokeh()
            with ThreadPoolExecutor(3) as threads:
                visits = list(threads.map(visit, ["/status", "/", "/workers"]))
            seen["visits"] = [(status, "bokeh" in text.lower()) for status, _, text in visits]
            seen["where"] = [where.removeprefix(base) for _, where, _ in visits]
            seen["after_visit"] = bokeh()
            seen["again"] = visit("/status")[0]
            seen["nowhere"] = visit("/no-such-page")[0]
            seen["health_again"] = visit("/health")[0]
            assert cluster.client.submit(sum, [3, 4]).result(30) == 7
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
    assert said[0] == "compiling the decoder for this machine, once; it takes some seconds\n"
    assert "NUMBA_CACHE_DIR" in said[1]
