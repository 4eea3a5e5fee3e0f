"""Put a whole transfer, its scheduler included, into one job of a batch system."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fink_dask.cluster.jobspec import JobSpec, check_path
from fink_dask.cluster.local import MEMORY_FRACTION
from fink_dask.cluster.systems import SYSTEMS
from fink_dask.errors import SettingsError, StorageError, TransferError

_BODY = """\
cd {folder} || exit 1
# All options stand below; what the environment says besides is about this job.
unset "${{!FINK_DASK_@}}"
# exec, so that the signal before the end reaches the transfer itself.
exec {command}
"""


@dataclass(frozen=True)
class BatchTransfer:
    """A transfer as a job."""

    #: The job; it is one, whatever was asked for.
    spec: JobSpec
    #: The directory of the logs.
    logs: Path
    #: The arguments of `fink-dask transfer`.
    arguments: Sequence[str]

    def script(self) -> str:
        """Write the job script."""
        check_path(self.logs)
        with TemporaryDirectory() as elsewhere:  # dask-jobqueue makes the directory of the logs where there is none
            script: str = self._job(Path(elsewhere)).job_script()
        return script.replace(elsewhere, str(self.logs))

    def submit(self) -> str:
        """Submit the job.

        Raises SettingsError if the batch system's command is missing.
        Raises StorageError if the directory for the logs can't be made.
        Raises TransferError if the job is refused, in the batch system's own words.
        """
        self.spec.check_command()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"can't make {self.logs}: {error.strerror}") from error
        job = self._job(self.logs)
        asyncio.run(job.start())
        if job.refusal is not None:
            raise TransferError(f"{self.spec.system} refused the job: {job.refusal}")
        return str(job.job_id)

    def _job(self, logs: Path) -> Any:
        from fink_dask.cluster.jobs import watched

        keywords = self.spec.keywords(logs, None)
        for name in ("scheduler_options", "protocol"):
            keywords.pop(name, None)
        if self.spec.asked.system == "htcondor":
            raise SettingsError("a transfer can't be a job of HTCondor yet: transfer --cluster htcondor may work")
        if (tried := SYSTEMS[self.spec.asked.system].tried) is not None:
            # A requeued job with --restart would start from nothing each time.
            again = tried.again["--restart" in self.arguments]
            others = [each for each in keywords["job_extra_directives"] if each not in tried.workers]
            keywords["job_extra_directives"] = [again, *tried.transfer, *others]
        # Settings of Dask's workers mean nothing to this job.
        prologue = [line for line in keywords["job_script_prologue"] if not line.startswith("export DASK_")]
        job_class = watched(self.spec.cluster_class)
        job = self.spec.new_job(job_class, "", "", keywords | {"job_script_prologue": prologue})
        head, _, _ = job.job_script().rpartition(job._command_template)
        python = keywords.get("python") or sys.executable
        command = shlex.join([python, "-m", "fink_dask", "transfer", *self.arguments, *self._bounds()])
        script = head.rstrip("\n") + "\n" + _BODY.format(folder=shlex.quote(str(Path.cwd())), command=command)
        job.job_script = lambda: script
        return job

    def _bounds(self) -> list[str]:
        """Limit the transfer to what the job has, in case the batch system does not."""
        given = {"--nconsumers": self.spec.cores, "--memory-limit": int(self.spec.memory_bytes * MEMORY_FRACTION)}
        return [text for name, value in given.items() if name not in self.arguments for text in (name, str(value))]
