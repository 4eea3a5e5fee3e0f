"""The jobs that a user wants of a batch system: the command line makes its options of them, without loading Dask."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fink_dask.cluster.systems import SYSTEMS
from fink_dask.errors import SettingsError, parameter
from fink_dask.settings import CLUSTER, Option, given

#: What a user types for no batch system at all.
LOCAL = "local"


def parse_bounds(option: str, text: str) -> tuple[int, int]:
    """Read the fewest and the most jobs."""
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingsError(f"{option}: {text[:40]!r} should be MIN:MAX, such as 1:10, with at least one job")
    return int(match[1]), int(match[2])


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Read names with their values."""
    for text in texts:
        if not re.fullmatch(r"[\w-]+=(?s:.+)", text):
            raise SettingsError(f"{option}: {text[:40]!r} should be KEY=VALUE, such as interface=ib0")
    pairs = [text.partition("=") for text in texts]
    return {key.replace("-", "_"): value for key, _, value in pairs}


@dataclass(frozen=True)
class JobOptions:
    """The jobs that a user wants; what is not given comes from Dask's own configuration.

    Raises SettingsError if a value is out of its bounds.
    """

    system: str = given(
        LOCAL,
        name="cluster",
        group=CLUSTER,
        metavar="local|slurm|sge|NAME",
        suggested=(LOCAL, *SYSTEMS),
        help="Where workers run: on this machine, in jobs of Slurm or Grid Engine, or in jobs of another system that "
        "dask-jobqueue knows, which is untested: pbs, lsf, oar, moab, htcondor.",
    )
    #: How many; with `min_jobs`, the most there may be.
    jobs: int = given(
        1, group=CLUSTER, metavar="N", is_number=True, help="With --cluster: how many jobs.  [default: 1]"
    )
    #: Of a job; it consumes as many ranges at once.
    cores: int | None = given(
        None,
        group=CLUSTER,
        metavar="N",
        is_number=True,
        help="With --cluster: cores per job; each consumes one range at a time.",
    )
    #: Of a job, such as ``8GB``.
    memory: str | None = given(
        None, group=CLUSTER, metavar="BYTES", help="With --cluster: memory per job, such as 8GB."
    )
    #: walltime, queue, account: as the batch system expects them.
    walltime: str | None = given(
        None, group=CLUSTER, metavar="TIME", help="With --cluster: time limit of a job, such as 02:00:00."
    )
    queue: str | None = given(
        None, group=CLUSTER, metavar="NAME", help="With --cluster: the queue, or Slurm's partition."
    )
    account: str | None = given(
        None,
        group=CLUSTER,
        metavar="NAME",
        help="With --cluster: the account to charge; in Grid Engine, the project.",
    )
    #: Directives of the job script.
    job_extra: tuple[str, ...] = given(
        (),
        group=CLUSTER,
        metavar="TEXT",
        is_repeatable=True,
        help="With --cluster: another directive of the job script; repeatable.",
    )
    #: Other arguments of dask-jobqueue.
    options: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "option": Option(
                name="cluster_option",
                group=CLUSTER,
                metavar="KEY=VALUE",
                is_repeatable=True,
                parse=parse_pairs,
                help="With --cluster: any other argument of dask-jobqueue, such as interface=ib0; repeatable.",
            )
        },
    )
    #: Section of ``jobqueue`` in Dask's configuration, which need not be complete.
    config_name: str | None = given(
        None,
        name="cluster_config",
        group=CLUSTER,
        metavar="NAME",
        help="With --cluster: the section of jobqueue to use in Dask's configuration (~/.config/dask/jobqueue.yaml).",
    )
    #: Jobs to keep even when there is little to do; a user gives them together with `jobs`.
    min_jobs: int | None = given(
        None,
        name="adapt",
        group=CLUSTER,
        metavar="MIN:MAX",
        parse=parse_bounds,
        help="With --cluster, instead of --jobs: as many jobs as there is work for, within these bounds.",
    )

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise SettingsError(
                f"{parameter('cluster')} is {self.system[:40]}, but must be one of {LOCAL}, {', '.join(SYSTEMS)}"
            )
        for name, value in (("jobs", self.jobs), ("cores", self.cores), ("adapt", self.min_jobs)):
            if value is not None and value < 1:
                raise SettingsError(f"{parameter(name)} is {value}, but must be at least 1")
        if self.min_jobs is not None and self.min_jobs > self.jobs:
            raise SettingsError(f"{parameter('adapt')} {self.min_jobs}:{self.jobs} has more at least than at most")
        texts = {parameter(name): getattr(self, name) for name in ("walltime", "queue", "account")}
        texts |= {f"{parameter('job_extra')} {text[:20]!r}": text for text in self.job_extra}
        for name, text in texts.items():
            # A second line would be a command of the script.
            if text is not None and not text.isprintable():
                raise SettingsError(f"{name} holds a line break, or something else that can't be printed")
