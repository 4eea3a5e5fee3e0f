"""Where a transfer runs, and the whole of it from a topic's name to a dataset."""
