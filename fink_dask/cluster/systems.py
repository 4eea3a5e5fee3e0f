"""The batch systems that dask-jobqueue knows, and of those that this project is tried on, what their jobs need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_SLURM_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}


@dataclass(frozen=True)
class JobState:
    """What the batch system says about a job."""

    words: str
    #: Whether nothing more will come of it.
    ended: bool = False
    #: Whether it has yet to begin.
    waits: bool = False


@dataclass(frozen=True)
class Tried:
    """What a batch system needs that this project's tests run on."""

    #: Directives of jobs with workers: one that was requeued would come back to a transfer that replaced it long ago.
    workers: tuple[str, ...]
    #: Directives of a job that is a whole transfer: a minute before its time is up is early enough to stop in good
    #: order.
    transfer: tuple[str, ...]
    #: Directives by which such a job is requeued, and is not: it goes on where it stopped.
    again: tuple[str, str]
    #: The command that lists the jobs of this user.
    asked: tuple[str, ...]
    #: Reads its answer: the state of each job, by the job's id.
    read: Callable[[str], dict[str, JobState]]


@dataclass(frozen=True)
class BatchSystem:
    """A batch system."""

    #: Its name in a sentence.
    name: str
    #: Its class in dask-jobqueue.
    cluster: str
    #: None where nobody has tried it.
    tried: Tried | None = None


def read_slurm(listing: str) -> dict[str, JobState]:
    """Read what squeue says."""
    states = {}
    for line in listing.splitlines():
        job, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        words = f"{state} ({reason})" if reason not in {"", "None"} else state
        states[job.strip()] = JobState(words, state in _SLURM_ENDED, state == "PENDING")
    return states


def read_grid_engine(listing: str) -> dict[str, JobState]:
    """Read what qstat says: job-ID, priority, name, user, state, and when."""
    rows = [line.split() for line in listing.splitlines()]
    return {
        row[0]: JobState(row[4], ended="E" in row[4], waits="w" in row[4])
        for row in rows
        if len(row) > 4 and row[0].isdigit()
    }


_SLURM = Tried(
    workers=("--no-requeue",),
    transfer=("--open-mode=append", "--signal=B:TERM@60"),
    again=("--requeue", "--no-requeue"),
    asked=("squeue", "--me", "--noheader", "--states=all", "--format=%A|%T|%r"),
    read=read_slurm,
)
#: It may run the script in another shell than the one that its first line names.
_GRID_ENGINE = Tried(
    workers=("-r n", "-S /bin/bash"),
    transfer=("-S /bin/bash",),
    again=("-r y", "-r n"),
    asked=("qstat",),
    read=read_grid_engine,
)
#: By what a user types.
SYSTEMS = {
    "slurm": BatchSystem("Slurm", "SLURMCluster", _SLURM),
    "sge": BatchSystem("Grid Engine", "SGECluster", _GRID_ENGINE),
    "pbs": BatchSystem("PBS", "PBSCluster"),
    "lsf": BatchSystem("LSF", "LSFCluster"),
    "oar": BatchSystem("OAR", "OARCluster"),
    "moab": BatchSystem("Moab", "MoabCluster"),
    "htcondor": BatchSystem("HTCondor", "HTCondorCluster"),
}
