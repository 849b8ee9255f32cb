"""The maintenance family: synchronisation between connections, backups, and clean-up."""
