"""The gateway, spoken to over HTTP: calls, waiting, watching."""
