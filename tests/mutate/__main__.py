"""Change the code in many places, one at a time, run the tests that reach it, and say what they do not notice."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tests.harness.kafka import EXTERNAL, KafkaBroker
from tests.mutate.rooms import AREAS, COMPILED, EQUIVALENT, LIBRARIES, WITH_KAFKA
from tests.mutate.session import SURVIVED, Result, Session, choose

_ROOT = Path(__file__).resolve().parents[2]
#: What a change that breaks loose may take of the machine.
_MEMORY_BYTES, _FILE_BYTES = 12 * 2**30, 2**32


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("areas", nargs=-1, type=click.Choice([*AREAS]))
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="How many changes.")
@click.option("--seed", type=int, help="Which ones; printed.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=_ROOT / "build" / "mutate", help="Where results are kept."
)
def main(areas: tuple[str, ...], count: int, seed: int | None, folder: Path) -> None:
    """Try changes in AREAS, or in all; exit status 1 if one was noticed by no test."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    click.echo(f"seed {seed}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with what the tests have started
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: files for name, files in AREAS.items() if name in (areas or AREAS)}
    changes = choose(_ROOT, chosen, count, seed)
    for name in LIBRARIES:
        import_module(name)
    environment = {}
    with ExitStack() as stack:
        if WITH_KAFKA & {change.path for change in changes} and EXTERNAL not in os.environ:
            broker = stack.enter_context(KafkaBroker(Path(stack.enter_context(TemporaryDirectory())) / "kafka"))
            environment[EXTERNAL] = broker.bootstrap_servers
        session = Session(_ROOT, folder, chosen, EQUIVALENT, COMPILED, environment)
        results = session.run(changes, _tell)
    for name, files in chosen.items():
        counts = Counter(each.outcome for each in results if each.change.path in files)
        click.echo(f"{name:8} {counts.total():4}: {', '.join(f'{n} {what}' for what, n in counts.most_common())}")
    survivors = [each for each in results if each.outcome == SURVIVED]
    click.echo(f"{len(survivors)} of {len(results)} were noticed by no test, of seed {seed}")
    for each in survivors:
        change = each.change
        click.echo(f"{change.path}:{change.line}: {change.before} → {change.after}, in {change.code}")
    sys.exit(1 if survivors else 0)


def _tell(result: Result) -> None:
    change = result.change
    click.echo(
        f"{result.outcome:10} {result.seconds:5.0f} s  {change.name}" + (f"  ({result.by})" if result.by else "")
    )


main()
