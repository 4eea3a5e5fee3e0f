"""A dataset, or some of it, as one table in a file that other programs read."""
