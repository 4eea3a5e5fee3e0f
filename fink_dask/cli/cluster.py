"""The options that say where a run is: on somebody else's Dask scheduler, or in jobs of a batch system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fink_dask.cli.command import (
    Command,
    UserPath,
    dashboard_address_option,
    declare_all,
    option,
    options_from,
    take,
)
from fink_dask.cluster.joboptions import LOCAL, JobOptions
from fink_dask.errors import SettingsError, parameter
from fink_dask.settings import CLUSTER, options_of

if TYPE_CHECKING:
    from fink_dask.cluster.choice import ClusterChoice

#: The options of somebody else's scheduler; files as `dask worker` names them.
_OF_SCHEDULER: list[Callable[[Command], Command]] = [
    option("--scheduler", group=CLUSTER, metavar="ADDRESS", help="Use the workers of this existing Dask scheduler."),
    *(
        option(
            name,
            group=CLUSTER,
            type=UserPath(dir_okay=False, path_type=Path),
            help=f"For --scheduler tls://…: the {what}.",
        )
        for name, what in (
            ("--tls-ca-file", "CA certificate to trust"),
            ("--tls-cert", "client's certificate"),
            ("--tls-key", "client's key"),
        )
    ),
]


@dataclass(frozen=True)
class AskedCluster:
    """Where a run is to be, as far as that is known before Dask is loaded."""

    #: Address of a Dask scheduler; and the files for one that is encrypted: authority, certificate and key.
    scheduler: str | None
    tls_files: tuple[Path | None, Path | None, Path | None]
    #: Jobs of a batch system.
    jobs: JobOptions | None
    dashboard_address: str

    @property
    def is_here(self) -> bool:
        """Whether it is this machine's cores."""
        return self.scheduler is None and self.jobs is None

    def resolve(self, all_threads: bool = True) -> ClusterChoice:
        """Load what that takes, and combine it with Dask's configuration.

        `all_threads`: whether all threads of the scheduler's workers are used, whatever workers come and go.
        Raises SettingsError if dask-jobqueue is missing or does not know an option.
        """
        from fink_dask.cluster.choice import ClusterChoice
        from fink_dask.cluster.existing import Scheduler
        from fink_dask.cluster.jobspec import resolve

        existing = None
        if self.scheduler is not None:
            existing = Scheduler(self.scheduler, *self.tls_files, all_threads=all_threads)
        spec = None if self.jobs is None else resolve(self.jobs)
        return ClusterChoice(existing, self.dashboard_address, spec)


def cluster_options(command: Command) -> Command:
    """Declare the options, for `asked_cluster`."""
    return declare_all(command, [*_OF_SCHEDULER, options_from(JobOptions), dashboard_address_option])


def asked_cluster(given: dict[str, Any]) -> AskedCluster:
    """Collect where a run is to be.

    `given`: the values of all options; those of this module are taken out.
    Raises SettingsError if options contradict each other, or a value is out of its bounds.
    """
    scheduler, *files = (given.pop(name) for name in ("scheduler", "tls_ca_file", "tls_cert", "tls_key"))
    address, jobs = given.pop("dashboard_address"), cluster_settings(given)
    if scheduler is not None and jobs is not None:
        raise SettingsError("--scheduler has its own workers: leave out --cluster, or --scheduler")
    return AskedCluster(scheduler, (files[0], files[1], files[2]), jobs, address)


def cluster_settings(given: dict[str, Any]) -> JobOptions | None:
    """Collect what jobs are wanted; None for this machine.

    `given`: the values of all options; those of jobs are taken out.
    Raises SettingsError if options contradict each other, or a value is out of its bounds.
    """
    values = take(JobOptions, given)
    system = values.pop("system").lower()
    if system == LOCAL:
        said = [option.name for field, (option, _) in options_of(JobOptions).items() if values.get(field)]
        if said:
            raise SettingsError(
                f"{parameter(said[0])} is about jobs: give --cluster slurm, or another batch system, as well"
            )
        return None
    bounds, jobs = values.pop("min_jobs"), values.pop("jobs")
    if bounds is not None and jobs is not None:
        raise SettingsError("--adapt says how many jobs there are: leave out --jobs")
    least, most = bounds or (None, jobs or 1)
    return JobOptions(system, jobs=most, min_jobs=least, **values)
