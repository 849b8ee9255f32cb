"""DuckDB files as databases: sources and destinations of jobs."""
