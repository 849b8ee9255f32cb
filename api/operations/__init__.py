"""For operators: queues, workers, health."""
