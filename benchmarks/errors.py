"""What ends the benchmark in one line."""


class BenchmarkError(RuntimeError):
    """Say what the benchmark needs and does not have, or what went wrong, in one line."""
