"""`celeriac up`: a whole service on this machine."""
