"""What a running transfer tells whoever watches, and the sums of it."""
