"""Exclude what a process has loaded at its start from Python's garbage collection.

A full collection visits every object that may be part of a reference cycle: hundreds of thousands for the modules,
contracts and schemas. That takes 70 ms in the gateway, twice a second under load, and no request is answered meanwhile.
They never become garbage, so they are excluded at the end of the start. Before a fork, this also keeps memory shared
with the children, because a collection writes into the header of each object that it visits.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

# Collect the youngest generation after this number of new objects, the next one every 20th time, and so on. Reference
# counting alone frees nearly everything that a request creates, so a collection finds next to nothing: with Python's
# default of 700, a batch of a thousand jobs had 17 collections, a quarter of its time.
_THRESHOLDS = (20_000, 20, 20)


def set_aside_what_is_loaded() -> None:
    """Free the garbage of the start, and let later collections visit only objects created from now on.

    Call it once, at the end of the start and before any fork.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def give_memory_back() -> None:
    """Free what is garbage, and return free memory to the system, after thousands of requests have ended."""
    gc.collect()
    with suppress(AttributeError, OSError):  # only glibc keeps free memory, and has this
        ctypes.CDLL(None).malloc_trim(0)
