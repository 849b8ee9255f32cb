"""DuckDB as an engine: bounded, interruptible, without access to other files or the network."""
