"""The broker: its settings, the one place that configures Celery, and the messages that go through it."""
