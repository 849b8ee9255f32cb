"""The layer between Celery and a task body: `@runs`, the claim, the run, the delivery, the scratch folder."""
