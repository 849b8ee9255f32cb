"""Query a report's datasets with DuckDB."""
