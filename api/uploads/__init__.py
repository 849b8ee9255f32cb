"""`/uploads`: files that clients bring."""
