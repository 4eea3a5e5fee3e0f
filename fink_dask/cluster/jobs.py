"""Jobs of dask-jobqueue that can tell what became of them."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dask_jobqueue.core import Job
from distributed.core import Status

_TAIL_BYTES = 8192
#: Dask's words where a worker can't reach its scheduler, and others that say more than the lines after them.
UNREACHED = "Timed out trying to connect"
_CAUSES = (UNREACHED, "CERTIFICATE_VERIFY_FAILED", "No space left on device", "ModuleNotFoundError")


class WatchedJob(Job):  # type: ignore[misc]
    """A job whose submission never fails with a traceback in a log, and which knows when its workers came.

    Attributes
    ----------
    refusal : str or None
        Why the batch system refused it.
    submitted : float
        When it was submitted, on the clock of `time.monotonic`.
    joined, alone : float or None
        When its first worker came, and since when it has had none.
    """

    refusal: str | None = None
    submitted = 0.0
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
