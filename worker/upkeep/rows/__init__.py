"""The process beside a worker that writes rows into the result database."""
