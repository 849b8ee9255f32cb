"""The contracts of the ML family."""
