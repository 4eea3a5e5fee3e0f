"""Which alerts are kept: what `--where` asks of each."""
