"""What an operator sees and changes: queues, workers, health."""
