"""What is shown while something goes on, on a terminal or in a notebook."""
