"""Keep Python's garbage collector away from what a process has loaded once and keeps.

A full collection looks at every object that may be part of a circle, and those of the modules, contracts and schemas of
a process are hundreds of thousands: 70 ms in the gateway, twice a second under load, during which it answers nobody.
They never become garbage, so they are set aside at the end of the start. Before a fork, that also keeps the children's
memory shared: a collection writes into the head of each object that it looks at.
"""

from __future__ import annotations

import gc

# The new objects that are still there when there are so many of them are looked at; every so many times those that were
# looked at once, too; and all. Nearly everything that a request makes goes by its count of references alone, so a
# collection finds next to nothing: with Python's 700, a batch of a thousand jobs had 17 of them, a quarter of its time.
_THRESHOLDS = (20_000, 20, 20)


def set_aside_what_is_loaded() -> None:
    """Free what the start left behind, and let later collections look only at what is made from now on.

    Call it once, at the end of the start and before any fork.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
