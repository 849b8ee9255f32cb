"""Tools for authors of kinds: check a package, compare contracts, write a new kind."""
