"""The report on the service's own day."""
