"""``python -m benchmarks.size``: what an installation takes, beside fink-client's, without extras."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from benchmarks.environments import CACHE, FINK_CLIENT, ROOT, python_environment
from benchmarks.errors import BenchmarkError

#: What an environment has before anything is installed.
_FROM_VENV = {"pip", "setuptools"}


def packages(environment: Path) -> dict[str, int]:
    """Measure what is installed in an environment.

    Returns: bytes of the installed files of each package, largest first, without compiled Python.
    """
    (site,) = (environment / "lib").glob("python*/site-packages")
    sizes = {}
    for record in site.glob("*.dist-info/RECORD"):
        files = [site / line.rsplit(",", 2)[0].strip('"') for line in record.read_text().splitlines()]
        name = record.parent.name.partition("-")[0]
        if name not in _FROM_VENV:
            sizes[name] = sum(each.stat().st_size for each in files if each.suffix != ".pyc" and each.is_file())
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


@click.command()
def main() -> None:
    """Install both, and print packages, sizes and the largest ones as a table of Markdown."""
    click.echo("| `pip install` | packages | MB | the largest, MB |\n| --- | --- | --- | --- |")
    # What this checkout wants may have changed since the last time.
    shutil.rmtree(CACHE / "size", ignore_errors=True)
    try:
        for name, what in (("size", str(ROOT)), ("fink-client", f"fink-client=={FINK_CLIENT}")):
            sizes = packages(python_environment(name, what))
            largest = ", ".join(f"{package} {size / 1e6:.0f}" for package, size in list(sizes.items())[:5])
            shown = "fink-dask" if what == str(ROOT) else what
            click.echo(f"| `{shown}` | {len(sizes)} | {sum(sizes.values()) / 1e6:.0f} | {largest} |")
    except BenchmarkError as error:
        sys.exit(f"benchmarks: error: {error}")


if __name__ == "__main__":
    main()
