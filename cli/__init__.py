"""The command line: an HTTP client of the gateway, and `celeriac up`, which starts a whole service here."""
