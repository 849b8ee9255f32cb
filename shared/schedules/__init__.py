"""Schedules: when a job comes again, and where that is kept."""
