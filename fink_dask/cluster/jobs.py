"""Jobs of dask-jobqueue that can tell what became of them.

A batch system is asked with its own commands what it says about this user's jobs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed.core import Status

from fink_dask.cluster.jobspec import import_dask_jobqueue
from fink_dask.cluster.systems import SYSTEMS, JobState

_TAIL_BYTES = 8192
#: Dask's words where a worker can't reach its scheduler, and others that say more than the lines after them.
UNREACHED = "Timed out trying to connect"
_CAUSES = (UNREACHED, "CERTIFICATE_VERIFY_FAILED", "No space left on device", "ModuleNotFoundError")

log = logging.getLogger(__name__)

#: A busy controller takes long to answer, and one that is away takes for ever.
_ASK_S = 30.0


class WatchedJob(import_dask_jobqueue().core.Job):  # type: ignore[misc]
    """A job whose submission never fails with a traceback in a log, and which knows when its workers came.

    `submitted`: when it was submitted, on the clock of `time.monotonic`.
    """

    #: Why the batch system refused it.
    refusal: str | None = None
    submitted = 0.0
    #: joined, alone: when its first worker came, and since when it has had none.
    joined: float | None = None
    alone: float | None = None

    async def start(self) -> None:
        """Submit it."""
        self.submitted = time.monotonic()
        try:
            await super().start()
        except (RuntimeError, OSError, ValueError) as error:
            said = str(error).rpartition("stderr:\n")[2].split()
            self.refusal = "".join(filter(str.isprintable, " ".join(said)))[:300] or type(error).__name__
            # Dask would take any other status for a mistake of its own; the watch ends the job.
            self.status = Status.running

    async def close(self) -> None:
        """Cancel it, even if it ended long ago."""
        with suppress(OSError):
            await super().close()
        self.status = Status.closed  # dask-jobqueue does not set it, and Dask then fails as it closes

    def log(self) -> Path | None:
        """Find its log: the last one of the batch system's that is not empty."""
        if not self.log_directory or not self.job_id:
            return None
        with suppress(OSError):
            paths = [
                path for path in Path(self.log_directory).iterdir() if self.job_id in re.findall(r"\d+", path.name)
            ]
            found = [path for path in paths if path.stat().st_size]
            return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
        return None

    def tail(self) -> str:
        """Return the last words of its log."""
        path = self.log()
        if path is None:
            return ""
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return _last_words(file.read().decode(errors="replace"))
        return ""


def watched(cluster_class: Any) -> Any:
    """Make a class of watched jobs for one of dask-jobqueue's clusters."""
    job_class = cluster_class.job_cls
    return type(f"Watched{job_class.__name__}", (WatchedJob, job_class), {})


def _last_words(text: str) -> str:
    """Return the last line that names a cause, or else the last that is not empty; bounded and printable."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if any(cause in line for cause in _CAUSES)]
    return "".join(filter(str.isprintable, (causes or lines)[-1]))[:300] if lines else ""


async def ask_states(system: str) -> dict[str, JobState] | None:
    """Ask for the state of each job of this user.

    Returns: by the job's id. None where there is no answer, or no known way to ask.
    """
    tried = SYSTEMS[system].tried
    if tried is None:
        return None
    command = tried.asked
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
    return tried.read(out.decode(errors="replace"))
