"""A dataset written once more with few files."""
