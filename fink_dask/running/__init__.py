"""Many ranges on Dask, and a whole transfer from a topic's name to a dataset."""
