"""What a batch system says about this user's jobs, asked with its own commands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: A busy controller takes long to answer, and one that is away takes for ever.
_ASK_S = 30.0
#: https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_SLURM_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


@dataclass(frozen=True)
class JobState:
    """What the batch system says about a job.

    Parameters
    ----------
    words : str
        Its own words.
    ended : bool
        Whether nothing more will come of it.
    waits : bool
        Whether it has yet to begin.
    """

    words: str
    ended: bool = False
    waits: bool = False


def _slurm(listing: str) -> dict[str, JobState]:
    states = {}
    for line in listing.splitlines():
        job, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        words = f"{state} ({reason})" if reason not in {"", "None"} else state
        states[job.strip()] = JobState(words, state in _SLURM_ENDED, state == "PENDING")
    return states


def _grid_engine(listing: str) -> dict[str, JobState]:
    # job-ID, priority, name, user, state, and when
    rows = [line.split() for line in listing.splitlines()]
    return {
        row[0]: JobState(row[4], ended="E" in row[4], waits="w" in row[4])
        for row in rows
        if len(row) > 4 and row[0].isdigit()
    }


#: How each batch system is asked, and how its answer is read.
_ASK: dict[str, tuple[list[str], Callable[[str], dict[str, JobState]]]] = {
    "slurm": (["squeue", "--me", "--noheader", "--states=all", "--format=%A|%T|%r"], _slurm),
    "sge": (["qstat"], _grid_engine),
}


async def ask_states(system: str) -> dict[str, JobState] | None:
    """Ask for the state of each job of this user.

    Returns
    -------
    dict or None
        By the job's id. None where there is no answer, or no known way to ask.
    """
    if system not in _ASK:
        return None
    command, read = _ASK[system]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        log.info("can't ask %s: %s", command[0], error)
        return None
    try:
        out, err = await asyncio.wait_for(process.communicate(), _ASK_S)
    except TimeoutError:
        process.kill()
        log.info("%s took more than %g s", command[0], _ASK_S)
        return None
    if process.returncode != 0:
        log.info("%s ended with %d: %s", command[0], process.returncode, err.decode(errors="replace")[:400])
        return None
    return read(out.decode(errors="replace"))
