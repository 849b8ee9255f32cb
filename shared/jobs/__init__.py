"""The built-in contracts, one module per family."""
