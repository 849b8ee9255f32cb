"""The maintenance family: copies between connections, backups, and clean-up."""
