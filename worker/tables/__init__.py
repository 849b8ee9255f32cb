"""Reading and writing the tables of connections; families share it."""
