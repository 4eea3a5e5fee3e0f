"""The options for running a transfer in jobs of a batch system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fink_dask.cli.command import options_from, take
from fink_dask.cluster.joboptions import LOCAL, JobOptions
from fink_dask.errors import SettingsError, parameter
from fink_dask.settings import options_of

if TYPE_CHECKING:
    from fink_dask.cluster.jobspec import JobSpec

#: For `cluster_settings`.
cluster_options = options_from(JobOptions)


def cluster_settings(given: dict[str, Any], scheduler: str | None = None) -> JobOptions | None:
    """Collect what jobs are wanted; None for this machine.

    `given`: the values of all options; those of this module are taken out.
    `scheduler`: the address of a Dask scheduler, if one was given.
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
    if scheduler is not None:
        raise SettingsError("--scheduler has its own workers: leave out --cluster, or --scheduler")
    bounds, jobs = values.pop("min_jobs"), values.pop("jobs")
    if bounds is not None and jobs is not None:
        raise SettingsError("--adapt says how many jobs there are: leave out --jobs")
    least, most = bounds or (None, jobs or 1)
    return JobOptions(system, jobs=most, min_jobs=least, **values)


def consumers(wanted: int, spec: JobSpec | None) -> int:
    """Count the ranges that are consumed at once.

    `wanted`: what the user says; -1 for all there can be. More than the cores only where these are this machine's.
    """
    from fink_dask.cluster.local import usable_cores

    if spec is not None:
        return spec.consumers if wanted == -1 else min(wanted, spec.consumers)
    return usable_cores() if wanted == -1 else wanted
