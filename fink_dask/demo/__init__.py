"""A survey's alerts that come with the program, so that a demo needs none of the survey's own."""
