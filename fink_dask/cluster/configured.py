"""Imported first by the process that workers are forked from: ends it without a word where Dask is configured wrongly.

Dask reads the user's files of configuration when it is imported. One that is malformed is met by the process that
started this one as well, which says so in a line.
"""

try:
    import dask  # noqa: F401
except ValueError:
    raise SystemExit(1) from None
