"""The checks that `doctor` makes."""
