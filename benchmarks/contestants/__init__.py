"""What is measured: each module says how its program is called."""
