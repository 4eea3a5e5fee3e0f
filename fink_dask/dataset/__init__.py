"""Arrow to Parquet: partition keys, files, the ledger and its proofs."""
