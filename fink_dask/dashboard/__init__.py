"""What Dask's dashboard and its metrics show of a transfer."""
