"""The migrations: what the tables have looked like."""
