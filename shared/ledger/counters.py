"""Counters of the metrics: hashes of integers in the Redis of the ledger, one field per series.

The script counts what must be exact, in the transition itself. The consumer of Celery's events counts what only the
workers know, per host. A field is the name of the counter and the labels, joined by `|`; the last label, a queue, may
contain the separator.
"""

from __future__ import annotations

OTHER = "other"  # replaces unknown values of a label, to bound their number
SEPARATOR = "|"
#: Upper bounds of the duration histograms, in seconds; the last bucket has none.
DURATION_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400)
NO_BOUND = "+Inf"


def bucket(duration_s: float) -> str:
    """Return the label of the histogram bucket of a duration: its upper bound."""
    return next((f"{bound:g}" for bound in DURATION_BOUNDS_S if duration_s <= bound), NO_BOUND)


def lua_bounds() -> str:
    """Return the bounds as Lua, so that the script has the same ones."""
    return f"local DURATION_BOUNDS_S = {{ {', '.join(f'{bound:g}' for bound in DURATION_BOUNDS_S)} }}"
