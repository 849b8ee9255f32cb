"""Synchronise a table with a table of another connection."""
