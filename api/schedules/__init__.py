"""`/schedules`: jobs that come again."""
