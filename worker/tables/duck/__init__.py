"""DuckDB as an engine: bounded, interruptible, closed to the outside."""
