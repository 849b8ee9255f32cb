"""A shop that has its invoices written by jobs."""
