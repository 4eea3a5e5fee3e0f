"""Soak: transfer made-up topics for some minutes while everything that can happen does, and account for every alert."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.harness.kafka import KafkaBroker
from tests.soak.rounds import Account, run_round


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=float, default=20, show_default=True, help="How long, about.")
@click.option("--seed", type=int, help="Of everything that is random; printed, to do the same again.")
@click.option("--alerts", type=int, default=250_000, show_default=True, help="Alerts of a round.")
@click.option("--round-seconds", type=float, default=90, show_default=True, help="How long things happen in a round.")
def main(minutes: float, seed: int | None, alerts: int, round_seconds: float) -> None:
    """Run rounds until the time is over; exit status 1 if an alert is missing, repeated or wrong."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    click.echo(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="fink-dask-soak-"))
    began = time.monotonic()
    whole, rounds = Account(), 0
    # Fink keeps a topic for a week; nothing but the soak itself may take an alert away.
    broker = KafkaBroker(folder / "kafka", {"log.retention.ms": "-1"})
    try:
        broker.start()
        while time.monotonic() - began < 60 * minutes and not whole.violations:
            place = folder / f"round-{rounds}"
            account = run_round(broker, place, random.Random(f"{seed} {rounds}"), alerts, round_seconds)
            rounds += 1
            whole.add(account)
            click.echo(
                f"{time.monotonic() - began:6.0f} s  round {rounds}: {account.checked:,} alerts "
                f"({account.lost:,} declared lost), {account.quarantined} in quarantine, {account.runs} runs, "
                f"{account.faults.total()} faults"
            )
            if not whole.violations:
                shutil.rmtree(place)
    finally:
        broker.discard()
    click.echo(
        json.dumps(
            {
                "seed": seed,
                "minutes": round((time.monotonic() - began) / 60, 1),
                "alerts": whole.checked,
                "declared_lost": whole.lost,
                "quarantined": whole.quarantined,
                "runs": whole.runs,
                "faults": whole.faults.total(),
                "by_kind": dict(whole.faults.most_common()),
                "violations": whole.violations,
            }
        )
    )
    if whole.violations:
        click.echo(f"kept in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


main()
