"""Run on jobs of a batch system, which this project submits, watches over and cancels."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed.security import Security

from fink_dask.cluster.client import open_client
from fink_dask.cluster.existing import check_workers
from fink_dask.cluster.forkserver import without_interrupts
from fink_dask.cluster.jobspec import JobSpec, check_path
from fink_dask.cluster.leftovers import dask_configuration
from fink_dask.cluster.local import DASK_CONFIG, SCHEDULER_OPTIONS, Cluster, free_address
from fink_dask.cluster.readiness import Lookahead, Needs
from fink_dask.cluster.systems import SYSTEMS
from fink_dask.dashboard.plugin import offer_dashboard
from fink_dask.errors import SettingsError, TransferError, one_line
from fink_dask.ledger.ledger import Ledger
from fink_dask.progress.events import Note
from fink_dask.progress.tally import Progress

log = logging.getLogger(__name__)

#: Seconds that closing may take; the jobs end by themselves once nobody answers them.
_CLOSE_S = 5


@contextmanager
def job_queue_cluster(
    spec: JobSpec, needs: Needs, busy: int, memory_limit: int | None, dashboard_address: str, progress: Progress
) -> Iterator[Cluster]:
    """Submit jobs, wait for the first of their workers, and cancel them at the end.

    `needs`: what workers must have; their keys and logs are kept beside the ledger as well.
    `busy`: how many ranges are consumed at once.
    `memory_limit`: bytes that all jobs together may take.
    `dashboard_address`: ``host:port`` of the dashboard; where the port is taken, another one that is free.
    Yields: the cluster; its `check` reports lost jobs, and has to be called now and then.
    Raises SettingsError if something is missing here, or there is too little memory.
    Raises TransferError if no jobs can be had, or their workers can't do the work, in the batch system's own words.
    """
    # Importing dask-jobqueue takes a while, and reads Dask's configuration.
    from fink_dask.cluster.jobs import watched
    from fink_dask.cluster.jobwatch import JobWatch

    jobs = min(spec.asked.jobs, -(-busy // spec.cores))
    memory = spec.memory_share(memory_limit)
    job_class = watched(spec.cluster_class)
    spec.check_command()
    if SYSTEMS[spec.asked.system].tried is None:
        progress(Note(f"fink-dask has never been tried on {spec.system}: please tell us how it went", warning=True))
    with ExitStack() as stack:
        room = stack.enter_context(_room(needs))
        keywords = spec.keywords(room, write_keys(room) if spec.is_encrypted else None)
        options = SCHEDULER_OPTIONS | {"dashboard_address": free_address(dashboard_address)}
        options |= keywords.pop("scheduler_options", {})
        # It is the watch that decides which jobs are lost.
        quiet = {"distributed.deploy.lost-worker-timeout": "1 day"}
        stack.enter_context(dask_configuration({**DASK_CONFIG, **quiet}))
        with without_interrupts():
            cluster = _start(spec, {**keywords, "job_cls": job_class, "scheduler_options": options})
            stack.callback(_close, cluster)  # before an interrupt that came meanwhile is raised
        offer_dashboard(cluster.scheduler)
        watch = JobWatch(cluster, spec, jobs, progress)
        watch.start()
        stack.callback(watch.stop)
        watch.wait_for_workers()
        client = stack.enter_context(open_client(cluster))
        check_workers(client, needs, progress)
        # Each range that waits for its turn has a thread of its own.
        # Whether jobs will bring workers, however long the queue is, the watch knows.
        ahead = Lookahead(busy, turns=spec.turns)
        yield Cluster(client, memory, ahead, watch.check, others_join=True, patience_s=math.inf)


def job_script(spec: JobSpec, ledger: Ledger) -> str:
    """Write the script of a job, with placeholders for what only a run knows."""
    room = _room_of(ledger)
    scheme = "tls" if spec.is_encrypted else "tcp"
    check_path(room)
    with TemporaryDirectory() as elsewhere:  # dask-jobqueue makes the directory of the logs where there is none
        keywords = spec.keywords(Path(elsewhere), _keys_in(room) if spec.is_encrypted else None)
        keywords.pop("scheduler_options", None)
        keywords.setdefault("protocol", f"{scheme}://")
        job = spec.new_job(spec.cluster_class.job_cls, f"{scheme}://SCHEDULER:PORT", "NAME", keywords)
        script: str = job.job_script()
    return script.replace(elsewhere, str(room))


def write_keys(room: Path) -> Security:
    """Make a key and a certificate by which the scheduler and the workers of one run know each other.

    `room`: A directory that nobody else can read; the workers find the files there.
    Raises SettingsError if the library that makes them is missing.
    """
    try:
        made = Security.temporary()
    except ImportError as error:
        raise SettingsError("keys need cryptography, which is missing: pip install 'fink-dask[hpc]'") from error
    keys = _keys_in(room)
    for path, text in ((keys.tls_ca_file, made.tls_ca_file), (keys.tls_worker_key, made.tls_worker_key)):
        # Synced, because on NFS another machine sees nothing of a file before that.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    return keys


def _keys_in(room: Path) -> Security:
    certificate, key = str(room / "certificate.pem"), str(room / "key.pem")
    files = {f"tls_{role}_cert": certificate for role in ("client", "scheduler", "worker")}
    files |= {f"tls_{role}_key": key for role in ("client", "scheduler", "worker")}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def _room_of(ledger: Ledger, name: str = Needs.room) -> Path:
    return ledger.store.shared_directory(ledger.path, name)


@contextmanager
def _room(needs: Needs) -> Iterator[Path]:
    """Make a private directory for keys and logs; the logs are kept where the run fails."""
    room = _room_of(needs.ledger, needs.room)
    shutil.rmtree(room, ignore_errors=True)  # of a run that was killed: the lease says that it is gone
    room.mkdir(mode=0o700)
    try:
        yield room
    except BaseException:
        for path in room.glob("*.pem"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            room.rmdir()  # nothing was logged
        raise
    shutil.rmtree(room, ignore_errors=True)


def _start(spec: JobSpec, keywords: dict[str, Any]) -> Any:
    try:
        return spec.cluster_class(silence_logs=logging.CRITICAL, **keywords)
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:  # from dask-jobqueue or Dask
        words = f"no Dask scheduler for jobs of {spec.system} could be started: {one_line(error)}"
        raise TransferError(words) from error


def _close(cluster: Any) -> None:
    """Cancel the jobs, and end the scheduler."""
    names = [job.job_id for job in list(cluster.workers.values()) if job.job_id]
    try:
        cluster.close(timeout=_CLOSE_S)
    except Exception as error:  # the transfer is what counts, and jobs without a scheduler end by themselves
        log.warning("jobs %s may run on for a minute: %s", ", ".join(names), error)
