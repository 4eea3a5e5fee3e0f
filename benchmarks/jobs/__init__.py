"""Scripts that run in an environment of their own, without this package."""
