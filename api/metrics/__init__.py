"""`/metrics`: what Prometheus scrapes, and the consumer of Celery's events that feeds it."""
