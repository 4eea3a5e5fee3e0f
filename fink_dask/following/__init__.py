"""A topic that still grows: what is new is planned, again and again, until the end."""
