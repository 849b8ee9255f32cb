"""The calls as plans, without I/O: see `celeriac/client/wire.py`."""
