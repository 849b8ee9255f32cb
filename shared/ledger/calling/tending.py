"""What the keeper is told that it has done."""

from __future__ import annotations

from typing import NamedTuple


class Action(NamedTuple):
    """An action of the keeper on a job.

    One of published (it is due, or no longer held), expired, republished, quarantined, cancelled, unpublished,
    forgotten, callback (its callback is to be submitted), set_aside (its record is damaged), failed (a round: `id`
    is its name and the error).
    """

    what: str
    id: str


class Tended(NamedTuple):
    """What one call of the keeper has done. `next_round` is the round to go on with, 0 if nothing is left to do now."""

    actions: list[Action]
    next_round: int
