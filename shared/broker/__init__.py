"""The broker: its settings, the configuration of Celery, and its messages."""
