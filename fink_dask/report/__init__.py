"""A dataset on one page: what its ledger says, and what a sample of its alerts shows."""
