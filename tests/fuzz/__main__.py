"""Feed everything that reads from outside with damaged input, and say what was found."""

from __future__ import annotations

import faulthandler
import random
import resource
import signal
import sys
import time
import traceback
from collections import defaultdict

import click

from tests.fuzz.parts import PARTS

#: Seconds of processor time in which a round must end, and memory that it may take: a hang or a bomb is a finding.
_ROUND_S = 300
_MEMORY_BYTES = 8 * 2**30


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS]))
@click.option("--minutes", type=float, default=20, show_default=True, help="How long, about.")
@click.option("--seed", type=int, help="Of the first round; printed, and each round has the next one.")
def main(parts: tuple[str, ...], minutes: float, seed: int | None) -> None:
    """Run rounds of PARTS, or of all, by turns until the time is over; exit status 1 if there is a finding."""
    first = random.SystemRandom().randrange(10**6) if seed is None else seed
    click.echo(f"seed {first}")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
    began = time.monotonic()
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    findings = 0
    number = first
    try:
        while time.monotonic() - began < 60 * minutes:
            for name in parts or [*PARTS]:
                signal.setitimer(signal.ITIMER_PROF, _ROUND_S)
                try:
                    taken, refused = PARTS[name](number)
                except Exception:
                    findings += 1
                    traceback.print_exc()
                    click.echo(f"finding: python -m tests.fuzz {name} --seed {number} --minutes 0.01", err=True)
                else:
                    counts[name] = [sum(pair) for pair in zip(counts[name], (1, taken, refused), strict=True)]
            number += 1
    except KeyboardInterrupt:
        click.echo("stopped")
    for name, (rounds, taken, refused) in counts.items():
        click.echo(f"{name:12} {rounds:6,} rounds {taken + refused:12,} inputs {taken:12,} taken {refused:12,} refused")
    click.echo(f"{findings} findings in {(time.monotonic() - began) / 60:.1f} minutes, from seed {first} on")
    sys.exit(1 if findings else 0)


main()
