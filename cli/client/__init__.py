"""The HTTP client of the gateway: calls, waiting, watching."""
