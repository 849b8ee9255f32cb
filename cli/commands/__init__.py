"""The commands of `celeriac`."""
