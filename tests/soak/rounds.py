"""One round of a soak: a topic that is filled, transfers that things happen to, and the account at the end."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

from fink_dask.dataset.quarantine import read_quarantine
from fink_dask.ledger.ledger import Ledger
from fink_dask.verifying.files import verify_dataset
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.kafka import KafkaBroker
from tests.harness.oracle import Place
from tests.harness.producer import publish_schema
from tests.harness.running import Running
from tests.harness.topics import create_topic, delete_topic
from tests.soak.alerts import SCHEMA, digest, digests_below
from tests.soak.injector import Injector
from tests.soak.topic import Filling

#: Exit statuses that are no surprise: complete, failed and to be continued, partial, and those of signals, also before
#: and after the time in which the program handles them.
_EXPECTED = {0, 1, 3, -9, -15, 130, 143}


@dataclass
class Account:
    """What a soak has come to."""

    #: Alerts that were published and are accounted for.
    checked: int = 0
    #: lost, quarantined: of them declared lost; and records that are no alerts, in quarantine or declared lost.
    lost: int = 0
    quarantined: int = 0
    #: Transfers that were started.
    runs: int = 0
    #: What happened to them.
    faults: Counter[str] = field(default_factory=Counter)
    #: What must not be.
    violations: list[str] = field(default_factory=list)

    def add(self, other: Account) -> None:
        """Add what another round has come to."""
        for name in (one.name for one in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def run_round(broker: KafkaBroker, folder: Path, chance: random.Random, alerts: int, seconds: float) -> Account:
    """Fill a topic, transfer it again and again while things happen, and hold the dataset against what was sent."""
    topic = f"ftransfer_ztf_2026-11-01_{chance.randrange(10**9)}"
    outdir = folder / "alerts"
    address = broker.bootstrap_servers
    create_topic(address, topic, 10)
    publish_schema(address, topic, json.dumps(SCHEMA))
    account = Account()
    filling = Filling(address, topic, chance, max(20, alerts // 30), alerts)
    injector = Injector(broker, topic, chance)
    account.faults = injector.faults
    filling.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not filling.failures:
        batchsize = chance.choice(["20", "100", "1000"])
        running = Running(broker, topic, outdir, "-batchsize", batchsize)
        account.runs += 1
        while not running.is_over and time.monotonic() < deadline:
            time.sleep(0.3 + chance.random() * 1.5)  # the program itself takes the first tenth to load
            injector.inject(running)
        was_killed = running.kill()
        code, err = running.finish()
        if code not in _EXPECTED or ("Traceback" in err and not was_killed):
            account.violations.append(f"exit status {code}: {err[-500:]}")
    filling.finish()
    account.violations += [f"the producer failed: {failure}" for failure in filling.failures]
    _complete(broker, topic, outdir, account)
    _check(outdir, filling, account)
    for name in (topic, f"{topic}_schema"):
        delete_topic(address, name)
    return account


def _complete(broker: KafkaBroker, topic: str, outdir: Path, account: Account) -> None:
    """Run the same command until everything is there; what is left to do is said by the exit status."""
    for _ in range(4):
        account.runs += 1
        result = run_cli(*transfer_arguments(broker, topic, outdir, "-partitionby", "time"), timeout_s=300)
        if result.returncode in {0, 3}:
            return
    account.violations.append(f"it does not complete: {result.stderr[-500:]}")


def _check(outdir: Path, filling: Filling, account: Account) -> None:
    """Hold data, quarantine and declared loss against what was acknowledged."""
    ledger = Ledger(outdir)
    found = verify_dataset(ledger)
    account.violations += found.problems
    lost = {
        (partition, offset)
        for partition, intervals in found.completeness.lost.items()
        for start, end in intervals
        for offset in range(start, end)
    }
    seen: dict[Place, bytes] = {}
    for place, value in digests_below(outdir):
        if place in seen:
            account.violations.append(f"{place} is there twice")
        seen[place] = value
    aside: dict[Place, bytes] = {}
    for marker in ledger.markers(ledger.plans()):
        for batch in [] if marker.quarantine is None else read_quarantine(ledger, marker.quarantine):
            for row in batch.to_pylist():
                aside[row["kafka_partition"], row["kafka_offset"]] = digest(row["value"])
    for what, sent, there in (("alert", filling.alerts, seen), ("poison", filling.poison, aside)):
        missing = sent.keys() - there.keys() - lost
        extra = there.keys() - sent.keys()
        wrong = [place for place in there.keys() & sent.keys() if there[place] != sent[place]]
        account.violations += [f"{len(missing)} {what}s are missing, such as {min(missing)}"] if missing else []
        account.violations += [f"{len(extra)} {what}s are foreign, such as {min(extra)}"] if extra else []
        account.violations += [f"{len(wrong)} {what}s are wrong, such as {min(wrong)}"] if wrong else []
    if overlap := lost & (seen.keys() | aside.keys()):
        account.violations.append(f"{len(overlap)} offsets are there and declared lost, such as {min(overlap)}")
    account.checked += len(filling.alerts)
    account.lost += len(lost & filling.alerts.keys())
    account.quarantined += len(aside)
