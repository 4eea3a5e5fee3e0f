"""What to transfer: which topics, which schemas, which ranges, how much, and how long it takes; no Dask here either."""
