"""`celeriac up`: a complete service on this machine."""
