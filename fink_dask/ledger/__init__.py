"""The ledger: plans, markers and the lease; how the files of a range become part of the dataset, exactly once."""
