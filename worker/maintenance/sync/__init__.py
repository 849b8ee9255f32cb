"""Tables brought up to date with tables elsewhere."""
