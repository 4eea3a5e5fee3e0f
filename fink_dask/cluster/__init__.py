"""Where a transfer runs, and a whole transfer from a topic's name to a dataset."""
