"""The daily report about the service."""
