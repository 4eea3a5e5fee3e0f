"""All that proves a dataset, and what mends it: a repair of its files, a retry of its quarantine."""
