"""A dataset on one page: what its ledger knows, and what a sample of its alerts shows."""
