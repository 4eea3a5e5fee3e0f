"""What comes in: clients, offsets, topics, credentials."""
