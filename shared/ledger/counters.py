"""What is counted for the metrics: hashes of integers in the ledger's Redis, one field a series.

The ledger's script counts what must be exact, in the transition itself. The consumer of Celery's events adds what only
the workers tell, by host. A field is the name of what is counted and the labels, joined by `|`; the last label, a
queue, may contain the separator.
"""

from __future__ import annotations

OTHER = "other"  # stands for whatever would make the values of a label many
SEPARATOR = "|"
#: Upper bounds of the duration histograms, in seconds; the last bucket has none.
DURATION_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400)
NO_BOUND = "+Inf"


def bucket(duration_s: float) -> str:
    """Return the bound of the histogram's bucket that a duration falls into, as it is labelled."""
    return next((f"{bound:g}" for bound in DURATION_BOUNDS_S if duration_s <= bound), NO_BOUND)


def lua_bounds() -> str:
    """Return the bounds as the ledger's script takes them: so both have the same."""
    return f"local DURATION_BOUNDS_S = {{ {', '.join(f'{bound:g}' for bound in DURATION_BOUNDS_S)} }}"
