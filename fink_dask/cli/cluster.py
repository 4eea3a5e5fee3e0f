"""The options for running a transfer in jobs of a batch system."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import Command, Lines, at_least_one, declare_all, option
from fink_dask.errors import SettingsError
from fink_dask.settings import CLUSTER

if TYPE_CHECKING:
    from fink_dask.cluster.joboptions import JobOptions, JobSpec

_LOCAL = "local"


def _bounds(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        words = f"{value[:40]!r} should be MIN:MAX, such as 1:10, with at least one job"
        raise click.BadParameter(words, param=parameter)
    return int(match[1]), int(match[2])


def _pairs(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    for text in values:
        if not re.fullmatch(r"[\w-]+=(?s:.+)", text):
            words = f"{text[:40]!r} should be KEY=VALUE, such as interface=ib0"
            raise click.BadParameter(words, param=parameter)
    pairs = [text.partition("=") for text in values]
    return {key.replace("-", "_"): value for key, _, value in pairs}


_OPTIONS = (
    option(
        "--cluster",
        group=CLUSTER,
        default=_LOCAL,
        show_default=True,
        metavar="local|slurm|sge|NAME",
        help="Where workers run: on this machine, in jobs of Slurm or Grid Engine, or in jobs of another system that "
        "dask-jobqueue knows, which is untested: pbs, lsf, oar, moab, htcondor.",
    ),
    option(
        "--jobs",
        group=CLUSTER,
        type=int,
        callback=at_least_one,
        metavar="N",
        help="With --cluster: how many jobs.  [default: 1]",
    ),
    option(
        "--cores",
        group=CLUSTER,
        type=int,
        callback=at_least_one,
        metavar="N",
        help="With --cluster: cores per job; each consumes one range at a time.",
    ),
    option("--memory", group=CLUSTER, metavar="BYTES", help="With --cluster: memory per job, such as 8GB."),
    option("--walltime", group=CLUSTER, metavar="TIME", help="With --cluster: time limit of a job, such as 02:00:00."),
    option("--queue", group=CLUSTER, metavar="NAME", help="With --cluster: the queue, or Slurm's partition."),
    option(
        "--account",
        group=CLUSTER,
        metavar="NAME",
        help="With --cluster: the account to charge; in Grid Engine, the project.",
    ),
    option(
        "--job-extra",
        group=CLUSTER,
        multiple=True,
        type=Lines(),
        metavar="TEXT",
        help="With --cluster: another directive of the job script; repeatable.",
    ),
    option(
        "--cluster-option",
        group=CLUSTER,
        multiple=True,
        type=Lines(),
        callback=_pairs,
        metavar="KEY=VALUE",
        help="With --cluster: any other argument of dask-jobqueue, such as interface=ib0; repeatable.",
    ),
    option(
        "--cluster-config",
        group=CLUSTER,
        metavar="NAME",
        help="With --cluster: the section of jobqueue to use in Dask's configuration (~/.config/dask/jobqueue.yaml).",
    ),
    option(
        "--adapt",
        group=CLUSTER,
        callback=_bounds,
        metavar="MIN:MAX",
        help="With --cluster, instead of --jobs: as many jobs as there is work for, within these bounds.",
    ),
)


#: Their names as the arguments of a command.
CLUSTER_OPTIONS = (
    *("cluster", "jobs", "cores", "memory", "walltime", "queue", "account", "job_extra", "cluster_option"),
    *("cluster_config", "adapt"),
)


def cluster_options(command: Command) -> Command:
    """Declare the options of `cluster_settings`."""
    return declare_all(command, _OPTIONS)


def cluster_settings(given: dict[str, Any], scheduler: str | None = None) -> JobOptions | None:
    """Collect what jobs are wanted; None for this machine.

    `given`: the values of all options; those of this module are taken out.
    `scheduler`: the address of a Dask scheduler, if one was given.
    Raises SettingsError if options contradict each other, or a value is out of its bounds.
    """
    values = {name: given.pop(name) for name in CLUSTER_OPTIONS}
    system, options = values.pop("cluster"), values.pop("cluster_option")
    if system.lower() == _LOCAL:
        said = [name for name, value in {**values, "cluster_option": options}.items() if value]
        if said:
            raise SettingsError(
                f"--{said[0].replace('_', '-')} is about jobs: give --cluster slurm, or another batch system, as well"
            )
        return None
    if scheduler is not None:
        raise SettingsError("--scheduler has its own workers: leave out --cluster, or --scheduler")
    adapt, jobs = values.pop("adapt"), values.pop("jobs")
    if adapt is not None and jobs is not None:
        raise SettingsError("--adapt says how many jobs there are: leave out --jobs")

    from fink_dask.cluster.joboptions import JobOptions

    least, most = adapt or (None, jobs or 1)
    return JobOptions(
        system.lower(),
        jobs=most,
        min_jobs=least,
        options=options,
        config_name=values.pop("cluster_config"),
        **values,
    )


def consumers(wanted: int, spec: JobSpec | None) -> int:
    """Count the ranges that are consumed at once.

    `wanted`: what the user says; -1 for all there can be. More than the cores only where these are this machine's.
    """
    from fink_dask.cluster.local import usable_cores

    if spec is not None:
        return spec.consumers if wanted == -1 else min(wanted, spec.consumers)
    return usable_cores() if wanted == -1 else wanted
