"""Arrow to files and back: partition columns, formats, what a reader opens, and the proof of it."""
