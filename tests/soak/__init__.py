"""A transfer that everything happens to, for as long as one likes: ``python -m tests.soak --minutes 20``."""
