"""What is seen of a transfer on Dask's dashboard and in its metrics."""
