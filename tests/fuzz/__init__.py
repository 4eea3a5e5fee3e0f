"""Whatever comes from outside, damaged at random for as long as one likes: ``python -m tests.fuzz --minutes 60``."""
