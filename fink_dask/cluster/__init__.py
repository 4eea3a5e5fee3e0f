"""Where a transfer runs: clusters, their workers, and the jobs of batch systems."""
