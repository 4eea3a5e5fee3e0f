"""What changes a range that is committed: a repair of its files, a retry of its quarantine."""
