"""Calling the ledger from the event loop: within each request's bound, and with answers that say only what is known."""
