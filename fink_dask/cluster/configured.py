"""Imported first by the process that workers are forked from: ends it silently where Dask's configuration is wrong.

Dask reads the user's configuration files when it is imported. The process that started this one meets a malformed one
as well, and says so in a line.
"""

try:
    import dask  # noqa: F401
except ValueError:
    raise SystemExit(1) from None
