"""What the processes that tests fork have loaded: with it, one that transfers a range begins a second sooner."""
# ruff: noqa: F401

import gc

import distributed
import pytest

import fink_dask.compaction.season
import fink_dask.joining.join
import fink_dask.ledger.restart
import fink_dask.planning.prepare
import fink_dask.ranges.task
import fink_dask.running.scheduling
import fink_dask.verifying.files
import tests.harness.ledgers
from fink_dask.avro.kernels import warm_up

warm_up()
# Or each of them would look through all of this, and copy it.
gc.freeze()
