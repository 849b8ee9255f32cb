"""Charts: compute, draw and describe figures."""
