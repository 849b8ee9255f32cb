"""Database engines: one object each, with its connection, reading, types, loading, dialect and failures."""
