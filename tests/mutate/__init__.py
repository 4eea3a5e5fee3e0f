"""Change the code in one place at a time, and see whether a test notices: ``python -m tests.mutate --seed 1``."""
