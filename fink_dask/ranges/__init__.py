"""One range, from its first record to its marker; nothing here knows Dask."""
