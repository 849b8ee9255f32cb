"""Schedules: their times, and where they are stored."""
