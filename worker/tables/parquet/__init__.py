"""Staged tables: Parquet files, their columns and types."""
