"""What is shown while something runs, on a terminal or in a notebook."""
