"""`/uploads`: files of clients."""
