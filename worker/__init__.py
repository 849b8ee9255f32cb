"""The workers: Celery tasks by family, and what they share."""
