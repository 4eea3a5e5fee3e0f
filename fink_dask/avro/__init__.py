"""Bytes to Arrow: read a writer schema, and decode batches of records with it."""
