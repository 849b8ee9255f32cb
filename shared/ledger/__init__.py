"""The ledger: every job's record, the script that changes it, and the typed callers of that script."""
