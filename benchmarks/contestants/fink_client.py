"""Fink's own client, as its users run it: with the timeout that it is registered with."""

from __future__ import annotations

import uuid

from benchmarks.contestants.job import Job
from benchmarks.measure import Command

#: In seconds; what registering writes unless another is asked for.
MAX_TIMEOUT_S = 10
#: In seconds without a new file; the slowest batches, of full LSST alerts, take a third of it.
FROZEN_AFTER_S = 90
OPTIONS = (
    "transfer -survey SURVEY -topic TOPIC -outdir alerts -partitionby time -nconsumers {consumers}"
    " -batchsize {batchsize}"
)


def command(job: Job) -> Command:
    """Register in the home directory, with a consumer group that is new, and return the command."""
    credentials = job.home / ".finkclient" / f"{job.topic.survey}_credentials.yml"
    credentials.parent.mkdir(parents=True, exist_ok=True)
    group = f"benchmark-{uuid.uuid4()}"  # an old group would go on where it stopped, which is at the end
    credentials.write_text(
        f"survey: {job.topic.survey}\nusername: benchmark\ngroupid: {group}\n"
        f"servers: {job.bootstrap}\nmaxtimeout: {MAX_TIMEOUT_S}\n"
    )
    program = str(job.environments.fink_client / "bin" / "finkctl")
    return Command((program, *job.spell(OPTIONS)), job.environment(), job.folder)
