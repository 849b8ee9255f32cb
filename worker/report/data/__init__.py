"""What a report says of its datasets, asked of DuckDB."""
