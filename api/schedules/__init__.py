"""`/schedules`: recurring jobs."""
