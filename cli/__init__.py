"""The command line: an HTTP client of the gateway, and `celeriac up`, which runs a complete service locally."""
