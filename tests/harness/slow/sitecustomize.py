"""Loaded by every Python that has this directory on its path: few alerts then last long enough to be killed in."""

from fink_dask import config

config.MIN_BATCH_BYTES = 0
