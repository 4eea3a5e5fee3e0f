"""A topic that still fills: what is new is planned, again and again, until it is over."""
