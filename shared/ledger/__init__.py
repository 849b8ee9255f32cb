"""The ledger: the records of all jobs, the script that changes them, and typed callers of the script."""
