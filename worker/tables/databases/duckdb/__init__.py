"""DuckDB, as a database that others keep their tables in."""
