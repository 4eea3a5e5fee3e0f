"""``python -m benchmarks``: measure everything, and write the results, the figures and the page."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType

import click

from benchmarks.cases import KINDS, SCALES
from benchmarks.environments import CACHE, ROOT, figures_environment, make_environments
from benchmarks.errors import BenchmarkError
from benchmarks.figures import draw
from benchmarks.follow import measure_following
from benchmarks.machine import commit
from benchmarks.page import write_page
from benchmarks.ranges import measure_ranges
from benchmarks.results import Results, load
from benchmarks.session import COMMANDS, new_results, run_benchmark
from benchmarks.stages import measure_stages
from tests.harness.kafka_install import HarnessError


@click.command()
@click.option("--scale", type=click.Choice(sorted(SCALES)), default="full", show_default=True, help="How large.")
@click.option("--runs", type=click.IntRange(1), help="Measurements a median; 5, or 1 in a small benchmark.")
@click.option(
    "--only",
    type=click.Choice([*KINDS, *COMMANDS]),
    multiple=True,
    help="Measure this topic or this contestant; of topics and contestants that are given, these on those.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results, page and figures go; docs, or .cache/benchmarks/small in a small benchmark.",
)
@click.option("--resume", is_flag=True, help="Go on with the benchmark whose results are there.")
@click.option("--draw-only", is_flag=True, help="Measure nothing; draw the results that are there.")
def main(scale: str, runs: int | None, only: tuple[str, ...], out: Path | None, resume: bool, draw_only: bool) -> None:
    """Measure fink-dask, what it was before, Fink's own client, Spark, Flink and two drains in one run, by turns."""
    signal.signal(signal.SIGTERM, _interrupt)
    out = out or (CACHE / "small" if scale == "small" else ROOT / "docs")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - began:7.0f} s  {line}")

    try:
        if draw_only:
            results = load(out)
        else:
            say("making the environments of the peers, where they are not there")
            environments = make_environments()
            results = (
                _resumed(out, scale)
                if resume
                else new_results(scale, runs or (1 if scale == "small" else 5), environments)
            )
            run_benchmark(results, environments, only, out, say)
            if not only:
                measure_stages(scale, 3 if scale == "full" else 1, out, say)
                measure_ranges(scale, out, say)
            if not only and scale == "full":
                measure_following(out, say)
        draw(results, figures_environment(), out)
        write_page(results, out)
        say(f"the page and its figures are in {out}")
    except (BenchmarkError, HarnessError) as error:
        sys.exit(f"benchmarks: error: {error}")
    except KeyboardInterrupt:
        click.echo("benchmarks: stopped; --resume goes on", err=True)
        sys.exit(130)


def _resumed(out: Path, scale: str) -> Results:
    """Take up results whose ratios to new ones are fair: of the same scale and the same code."""
    results = load(out)
    if results.run["scale"] != scale:
        raise BenchmarkError(f"the results in {out} are of the scale {results.run['scale']}, not {scale}")
    if f"commit {commit()}, " not in results.versions["fink-dask"]:
        raise BenchmarkError(f"the results in {out} are of another commit: begin again")
    return results


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
