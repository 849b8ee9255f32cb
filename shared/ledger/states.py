"""The states of a job and of a step, and the transitions between them.

    accept ──► scheduled ──due──► queued ──claim──► running ──finish──► succeeded
       └──────────────────────────►│ ▲                │ ├──finish──► failed
                                   │ │◄─release/lost──┘ ├──cancel──► cancelled
                                   │ └──due── retrying ◄┤retry
                                   │                    └──lost too often──► quarantined
    cancel: scheduled, queued, retrying ──► cancelled      expire: the same three ──► expired

A queued job is with the broker, or held; it is `queued` all the while, and `waiting_reason` tells:

    with the broker ──claim (or publish) while its queue is paused──► queue_paused ──resume──► with the broker
    with the broker ──claim while its concurrency key is full──► concurrency_limited ──a place is free──► the broker

`shared/ledger/script` holds the transitions; a step can also be ``waiting`` (its predecessor has not
ended) and ``skipped`` (a predecessor did not succeed).
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The life of a job."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    QUARANTINED = "quarantined"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in FINAL_STATES


class StepState(StrEnum):
    """The life of a step: a job's states, and two that only a step has."""

    WAITING = "waiting"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    QUARANTINED = "quarantined"
    SKIPPED = "skipped"


FINAL_STATES = frozenset(
    {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.QUARANTINED},
)
