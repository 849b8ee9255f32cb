"""Backup and restoration, verified by digests."""
