"""The job of the three shops: writes an invoice."""
