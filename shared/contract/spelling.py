"""What was probably meant: one way for all messages to name the nearest known name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 100  # of what is compared: the time grows with the square
_LISTED = 30
_CUTOFF = 0.5


def nearest(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = _CUTOFF) -> list[str]:
    """Return at most `most` of the `known` names that are spelled nearly like `name`, whatever the case of letters.

    `cutoff` is how nearly, from 0 to 1.
    """
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    return [folded[near] for near in get_close_matches(name[:_LONGEST].casefold(), folded, n=most, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names what was probably meant, or else what there is."""
    names = list(known)
    if near := nearest(name, names):
        return f"Did you mean {near[0]!r}?"
    listed = ", ".join(repr(each) for each in names[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Known: {listed or 'none'}{more}."
