"""Workers on three hosts write to an object store on a fourth: whatever dies or is cut off, every alert is there once.

``FINK_DASK_TEST_SEED`` chooses what happens when; without it, ``python -m tests.repeat --times 10`` with the name of
this file tries ten others.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.batch import start_cli
from tests.harness.cli import FEW_AT_ONCE, PROGRAM, environment, transfer_arguments, unhurried
from tests.harness.distant import DistantDask, distant_store
from tests.harness.hosts import Host, Network
from tests.harness.kafka import ExternalKafka
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.oracle import assert_exactly_once, fill_topic, wait_for
from tests.harness.seed import seed
from tests.harness.switch import distant_broker

ALERTS, PARTITIONS = 24_000, 40
#: How often the same command is given again before it is given up.
TRIES = 8


@dataclass(frozen=True)
class Place:
    """A network with all that a transfer needs but Dask."""

    network: Network
    kafka: ExternalKafka
    store: ObjectStore


@pytest.fixture(scope="module")
def place(hosts: Callable[[int], Network], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Yield hosts for a broker, a store, a scheduler with its client, and three workers."""
    folder = tmp_path_factory.mktemp("distant")
    with (
        hosts(6) as network,
        distant_broker(network.hosts[0], folder / "kafka") as (_, kafka),
        distant_store(network.hosts[1], folder / "store") as store,
    ):
        yield Place(network, kafka, store)


class Client:
    """The same command, given again and again on a host."""

    def __init__(self, host: Host, arguments: list[str], settings: dict[str, str]) -> None:
        # host, arguments, settings: where, what, and its environment.
        self._host = host
        self._arguments = arguments
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def begin(self) -> None:
        """Give the command, unless it runs."""
        if self.is_over:
            with self._host.inside():
                self._process = start_cli(self._arguments, self._settings)

    def end(self) -> tuple[int, str]:
        """Wait for its end."""
        assert self._process is not None
        _, err = self._process.communicate(timeout=300)
        return self._process.returncode, err

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.mark.timeout(600)
def test_21_22_deaths_and_cuts_among_three_hosts_that_write_to_a_store_cost_no_alert(
    place: Place, tmp_path: Path, chance: random.Random
) -> None:
    kafka_host, store_host, client_host, *workers = place.network.hosts
    topic, prefix = f"ftransfer_ztf_2026-11-01_{seed()}", f"{seed()}/alerts"
    with kafka_host.inside():
        oracle = fill_topic(
            place.kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, ALERTS, partitions=PARTITIONS, seed=seed()
        )
    url, hurry = f"s3://{BUCKET}/{prefix}", tmp_path / "hurry"
    settings = environment({**unhurried(hurry), **place.store.environment})
    with DistantDask(client_host, workers, tmp_path, settings) as dask:
        options = ("-outdir", url, "-partitionby", "time", "--scheduler", dask.address, *FEW_AT_ONCE)
        client = Client(client_host, transfer_arguments(place.kafka, topic, Path(), *options), settings)

        def committed() -> int:
            return len(place.store.files(f"{prefix}.fink/markers"))

        def cut(host: Host) -> None:
            until = monotonic() + chance.uniform(2, 8)
            with place.network.cut(host):
                wait_for(lambda: monotonic() > until, "the end of the cut")

        def kill_scheduler() -> None:
            dask.kill_scheduler()
            assert client.end()[0] == 1
            dask.start()

        def kill_host() -> None:
            host = chance.choice(workers)
            dask.kill_host(host)
            dask.start_worker(host)

        faults: dict[str, Callable[[], None]] = {
            "a worker dies": lambda: dask.kill_worker(chance.choice(workers)),
            "the host of a worker dies": kill_host,
            "the scheduler dies": kill_scheduler,
            "the command dies": client.kill,
            "a worker is cut off": lambda: cut(chance.choice(workers)),
            "the store is cut off": lambda: cut(store_host),
            "Kafka is cut off": lambda: cut(kafka_host),
        }
        try:
            done = 0
            for name in chance.sample(sorted(faults), len(faults)):
                client.begin()
                wanted = committed() + chance.randint(1, 3)
                wait_for(lambda: client.is_over or committed() >= wanted, f"some ranges before {name}")  # noqa: B023
                if committed() == PARTITIONS:
                    break
                sleep(chance.random())  # in the middle of whatever comes next
                print(f"{committed()} ranges: {name}")
                faults[name]()
                done += 1
            assert done >= 4, "it was over before anything happened to it"
            hurry.touch()
            for _ in range(TRIES):
                client.begin()
                code, err = client.end()
                assert "Traceback" not in err
                if code == 0:
                    break
            assert code == 0, err
        finally:
            client.kill()
        with client_host.inside():
            verified = subprocess.run(
                [*PROGRAM, "verify", url], env=settings, capture_output=True, text=True, timeout=120, check=False
            )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert_exactly_once(place.store.folder / "data" / BUCKET / prefix, oracle.values)
    assert [name for name in place.store.files(f"{prefix}.fink/staging") if not name.endswith(".admitted")] == []
