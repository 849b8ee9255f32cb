"""Routes, one module a resource; each offers `router`."""
