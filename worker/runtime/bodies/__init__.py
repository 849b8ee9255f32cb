"""What a body does to its process: what it prints, what it changes, and the processes that it starts."""
