"""How users of fink-dask run it."""

from __future__ import annotations

import sys

from benchmarks.contestants.job import Job
from benchmarks.environments import ROOT
from benchmarks.measure import Command

OPTIONS = "transfer -topic TOPIC -outdir alerts -partitionby time -nconsumers {consumers} -batchsize {batchsize}"


def command(job: Job) -> Command:
    """Return the command, with the dashboard on any free port."""
    where = ["--bootstrap-servers", job.bootstrap, "--dashboard-address", "127.0.0.1:0"]
    # From the checkout, which the environment of the project holds in editable form.
    return Command((sys.executable, "-m", "fink_dask", *job.spell(OPTIONS), *where), job.environment(), ROOT)
