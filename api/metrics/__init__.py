"""`/metrics`: the endpoint for Prometheus, and the consumer of Celery's events that feeds it."""
