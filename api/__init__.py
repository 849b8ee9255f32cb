"""The gateway: HTTP in, ledger out. It never imports the worker."""
