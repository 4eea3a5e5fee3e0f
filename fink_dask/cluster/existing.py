"""Run on a Dask scheduler that already exists, once its workers have shown that they can do the work."""

from __future__ import annotations

import importlib.metadata
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed import Client
from distributed.security import Security

import fink_dask
from fink_dask.cluster.client import open_client
from fink_dask.cluster.local import MEMORY_FRACTION, Cluster
from fink_dask.cluster.readiness import SAID_S, Needs, check_fitness, no_workers
from fink_dask.errors import SettingsError, TransferError, one_line, parameter
from fink_dask.progress.events import Doing, Observer
from fink_dask.ranges.memory import FULL_SHARE, WORKER_BYTES, MemoryShare, share_memory

#: Half of Dask's own time-out: a busy scheduler may take seconds, and whoever has typed a wrong address waits as long.
_CONNECT_S = 15
#: Seconds for the first worker: a cluster that grows by need may have to wait for a machine.
_WORKERS_S = 600
#: Longer than Kafka's own time-out and the tasks that a busy worker has to finish first.
_ANSWER_S = 120
#: Seconds between two looks at who has answered or gone.
_LOOK_S = 0.1
_NEEDS_TLS = "tls:// needs --tls-ca-file, --tls-cert and --tls-key, or distributed.comm.tls in Dask's configuration"


@dataclass(frozen=True)
class Scheduler:
    """A Dask scheduler that somebody else runs."""

    #: Such as ``tcp://host:8786``, or ``tls://host:8786`` where it is encrypted.
    address: str
    #: tls_ca_file, tls_cert, tls_key: for ``tls://``: the authority, and this program's own certificate and key; by
    #: default those that Dask's own configuration (``distributed.comm.tls``) names.
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: An open connection to it; it is used, and stays open.
    client: Client | None = None
    #: Consume as many ranges at once as its workers have threads, whatever workers come and go.
    all_threads: bool = False

    @property
    def is_open(self) -> bool:
        """Whether others can listen in on the scheduler's traffic: unencrypted, and not only on this machine."""
        parts = urlsplit(self.address if "://" in self.address else f"tcp://{self.address}")
        host = parts.hostname or ""
        try:
            is_here = ip_address(host).is_loopback
        except ValueError:
            is_here = host == "localhost"
        return parts.scheme not in {"tls", "wss", "inproc", "gateway"} and not is_here

    def connect(self) -> AbstractContextManager[Client]:
        """Connect to it.

        Raises SettingsError if a TLS file can't be used.
        Raises TransferError if no scheduler answers.
        """
        if self.client is not None:
            return nullcontext(self.client)
        files = {"tls_ca_file": self.tls_ca_file, "tls_client_cert": self.tls_cert, "tls_client_key": self.tls_key}
        given = {name: str(path) for name, path in files.items() if path is not None}
        for path in given.values():
            if not Path(path).is_file():
                raise SettingsError(f"can't read {path}: no such file")
        try:
            # Where none is given, Dask's own configuration counts.
            security = Security(require_encryption=True, **given) if given else None
            client: AbstractContextManager[Client] = open_client(self.address, timeout=_CONNECT_S, security=security)
        except (OSError, ValueError, RuntimeError, TypeError) as error:  # Dask's words where TLS is asked for, or not
            words = _NEEDS_TLS if "ssl_context" in str(error) else one_line(error)
            raise TransferError(f"no Dask scheduler answers at {self.address} ({words})") from error
        return client

    def threads(self) -> int:
        """Count the ranges that its workers can consume at once now: one a thread.

        Raises SettingsError if a TLS file can't be used.
        Raises TransferError if no scheduler answers.
        """
        with self.connect() as client:
            return threads_of(client)


def threads_of(client: Client) -> int:
    """Count the threads of all workers; one where there are no workers yet."""
    return max(1, int(sum(ask_scheduler(client, client.nthreads).values())))


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of each worker, such as its threads and the limit of its memory."""
    about = ask_scheduler(client, client.sync, client.scheduler.identity, n_workers=-1)
    workers: dict[str, dict[str, Any]] = about.get("workers", {})
    return workers


def ask_scheduler(client: Client, question: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Ask a scheduler, but do not wait for ever for one that is halted: Dask itself would.

    `question`: a method of the client that hands what it does not know to `Client.sync`, or that itself.
    Raises TransferError if it does not answer.
    """
    try:
        return question(*arguments, **named, callback_timeout=_ANSWER_S)
    except TimeoutError as error:
        words = f"the Dask scheduler {client.scheduler.address} has not answered within {_ANSWER_S} s"
        raise TransferError(f"{words}: is it halted, or busy with something else?") from error


@contextmanager
def existing_scheduler(
    scheduler: Scheduler, needs: Needs, memory_limit: int | None, observe: Observer
) -> Iterator[Cluster]:
    """Connect to a scheduler whose workers have what they need.

    `memory_limit`: bytes that all workers together may take; by default half of their own limits.
    Raises TransferError if a worker lacks something; it says which worker lacks what.
    """
    with scheduler.connect() as client:
        check_workers(client, needs, observe)
        memory = _memory(workers_of(client).values(), memory_limit)
        # A limit for all workers together was divided among those that are there.
        all_threads = scheduler.all_threads and memory_limit is None
        yield Cluster(client, memory, others_join=True, all_threads=all_threads, patience_s=_WORKERS_S)


def _memory(workers: Collection[Mapping[str, Any]], memory_limit: int | None) -> MemoryShare:
    """Divide the user's limit, or else the memory of the worker that has the least per thread."""
    if memory_limit is not None:
        everybody = sum(worker["nthreads"] for worker in workers)
        # All threads of all workers may get a range, whatever is asked for.
        remedy = f"give a larger {parameter('memory_limit')}, which is for the threads of all workers"
        return share_memory(memory_limit, len(workers) * WORKER_BYTES, everybody, everybody, remedy)
    shares = []
    for worker in workers:
        limit, threads = worker["memory_limit"] * MEMORY_FRACTION, worker["nthreads"]
        if limit:  # a worker without a limit has room for all that it can use
            remedy = "give the workers more memory, of which they take half, or fewer threads"
            shares.append(share_memory(int(limit), WORKER_BYTES, threads, threads, remedy))
    return min(shares, key=lambda share: share.total, default=FULL_SHARE)


def check_workers(client: Client, needs: Needs, observe: Observer = lambda _: None) -> None:
    """Check on every worker that it has what it needs.

    Raises TransferError if a worker lacks something; it says which worker lacks what.
    """
    _wait_for_workers(client, observe)
    version = fink_dask.__version__
    # Only the standard library's functions can be sent to a process that may lack this package.
    found = _ask_each(client, ask_scheduler(client, client.nthreads), importlib.metadata.version, "fink-dask")
    for where, answer in [*found.items(), ("the scheduler", _version_on_scheduler(client))]:
        if answer != version:
            what = f"fink-dask {answer}" if isinstance(answer, str) else "no fink-dask"
            raise TransferError(f"{_who(where)} has {what}, but this is {version}: install the same version there")
    token = needs.ledger.path / f".token-{uuid.uuid4().hex}"
    try:
        token.write_text("seen")
        answers = _ask_each(client, found, check_fitness, needs, token)
    finally:
        token.unlink(missing_ok=True)
    for where, lack in answers.items():
        if lack is not None:
            raise TransferError(f"{_who(where)} can't work here: {one_line(lack)}")


def _wait_for_workers(client: Client, observe: Observer) -> None:
    # A cluster that adapts itself has none, and starts one, where there is something to do.
    call = client.submit(int, pure=False)
    began, is_said, scheduler = time.monotonic(), False, f"the Dask scheduler {client.scheduler.address}"
    observe(Doing(f"waiting for workers of {scheduler}"))
    try:
        while not ask_scheduler(client, client.nthreads):
            waited_s = time.monotonic() - began
            if waited_s > _WORKERS_S:
                raise TransferError(f"{scheduler} has no workers, and none came within {_WORKERS_S} s")
            if waited_s > SAID_S and not is_said:
                is_said = True
                observe(no_workers(_WORKERS_S))
            time.sleep(_LOOK_S)
    finally:
        call.release()
    observe(Doing(f"checking the workers of {scheduler}"))


def _ask_each(client: Client, workers: Iterable[str], function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function on each worker in a task, so that its event loop runs on; what it raises is its answer.

    One that goes meanwhile, or has no time to answer, lacks nothing; it checks itself before its first range.
    """
    asked = {
        worker: client.submit(function, *arguments, workers=[worker], pure=False, key=f"check-{uuid.uuid4().hex}")
        for worker in workers
    }
    deadline = time.monotonic() + _ANSWER_S
    here = ask_scheduler(client, client.nthreads)
    while any(worker in here and not future.done() for worker, future in asked.items()):
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_S)
        here = ask_scheduler(client, client.nthreads)
    answers: dict[str, Any] = {}
    for worker, future in asked.items():
        if worker in here and future.done():
            try:
                answers[worker] = future.result()
            except Exception as error:  # whatever was raised says what is lacking
                answers[worker] = error
    if not answers:
        words = f"no worker of the Dask scheduler {client.scheduler.address} has answered within {_ANSWER_S} s"
        raise TransferError(f"{words}: are they busy with something else, or gone?")
    return answers


def _version_on_scheduler(client: Client) -> Any:
    ask: Callable[..., Any] = importlib.metadata.version
    try:
        return ask_scheduler(client, client.run_on_scheduler, ask, "fink-dask")
    except TransferError:  # it has not answered
        raise
    except Exception as error:  # whatever the scheduler raised is its answer
        return error


def _who(where: str) -> str:
    return where if where.startswith("the ") else f"worker {where}"
