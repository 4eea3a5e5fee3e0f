"""What changes a committed range: a repair of its files, a retry of its quarantine."""
