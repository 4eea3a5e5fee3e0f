"""Which cluster a run is on: the cores of this machine, a scheduler that somebody else runs, or jobs of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from fink_dask.cluster.existing import Scheduler, existing_scheduler
from fink_dask.cluster.jobqueue import job_queue_cluster
from fink_dask.cluster.jobspec import JobSpec
from fink_dask.cluster.local import Cluster, local_cluster, usable_cores
from fink_dask.cluster.readiness import Needs
from fink_dask.progress.events import Doing, Note
from fink_dask.progress.tally import Progress
from fink_dask.settings import DASHBOARD_ADDRESS

#: So many ranges at once as there can be.
ALL = -1


@dataclass(frozen=True)
class ClusterChoice:
    """Which cluster a run is on."""

    #: An existing Dask scheduler; otherwise this machine's cores are used.
    scheduler: Scheduler | None = None
    #: ``host:port`` of the dashboard of a cluster that is started here.
    dashboard_address: str = DASHBOARD_ADDRESS
    #: Jobs of a batch system, which are submitted for the run.
    jobs: JobSpec | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is this machine's cores."""
        return self.scheduler is None and self.jobs is None

    def consumers(self, wanted: int = ALL) -> int:
        """Count the ranges that are consumed at once, of which more than the cores only make sense on this machine.

        Raises TransferError if that depends on the scheduler, and it does not answer.
        """
        if self.jobs is not None:
            return self.jobs.consumers if wanted == ALL else min(wanted, self.jobs.consumers)
        if wanted != ALL:
            return wanted
        return usable_cores() if self.scheduler is None else self.scheduler.threads()

    def connect(
        self, needs: Needs, nconsumers: int, ranges: int, memory_limit: int | None, progress: Progress
    ) -> AbstractContextManager[Cluster]:
        """Start what is to be started, and check that the workers elsewhere have what they need.

        `ranges`: how many there are to consume, `nconsumers` of them at once.
        `memory_limit`: bytes that all workers together may take.
        Raises SettingsError if something is missing here, or there is too little memory.
        Raises TransferError if no workers can be had, or they can't do the work.
        """
        security = None if needs.kafka is None else needs.kafka.security
        progress(Doing("starting workers" if self.scheduler is None else "connecting to the Dask scheduler"))
        exposed = security is not None and security.password is not None
        if self.jobs is not None:
            if exposed and not self.jobs.is_encrypted:
                words = "Kafka's password goes unencrypted to the workers: leave out protocol=tcp to encrypt it"
                progress(Note(words, warning=True))
            busy = max(1, min(nconsumers, ranges))
            return job_queue_cluster(self.jobs, needs, busy, memory_limit, self.dashboard_address, progress)
        if self.scheduler is not None:
            if exposed and self.scheduler.is_open:
                words = f"Kafka's password goes unencrypted to the workers of {self.scheduler.address}: use tls://"
                progress(Note(words, warning=True))
            return existing_scheduler(self.scheduler, needs, memory_limit, progress)
        return local_cluster(nconsumers, ranges, self.dashboard_address, memory_limit)
