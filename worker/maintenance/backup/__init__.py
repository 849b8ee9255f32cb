"""Backups and their restoration, with proof."""
