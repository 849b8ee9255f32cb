"""The states of a job and of a step, and the transitions between them.

    accept ──► scheduled ──due──► queued ──claim──► running ──finish──► succeeded
       └──────────────────────────►│ ▲                │ ├──finish──► failed
                                   │ │◄─release/lost──┘ ├──cancel──► cancelled
                                   │ └──due── retrying ◄┤retry
                                   │                    └──lost too often──► quarantined
    cancel: scheduled, queued, retrying ──► cancelled      expire: the same three ──► expired

A queued job is in the broker, or held. Its state is `queued` in both cases, and `waiting_reason` is the difference:

    with the broker ──claim (or publish) while its queue is paused──► queue_paused ──resume──► with the broker
    with the broker ──claim while its concurrency key is full──► concurrency_limited ──a place is free──► the broker

`shared/ledger/script` has the transitions; a step can also be ``waiting`` (its predecessor has not
ended) and ``skipped`` (a predecessor did not succeed).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


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


class _Traits(NamedTuple):
    is_final: bool = False
    waits: bool = False  # for its start or a worker; `waiting_reason` says for which
    celery: str = "PENDING"  # the state for Celery's clients


_TRAITS = {
    StepState.WAITING: _Traits(),
    StepState.SCHEDULED: _Traits(waits=True),
    StepState.QUEUED: _Traits(waits=True),
    StepState.RUNNING: _Traits(celery="STARTED"),
    StepState.RETRYING: _Traits(waits=True, celery="RETRY"),
    StepState.SUCCEEDED: _Traits(is_final=True, celery="SUCCESS"),
    StepState.FAILED: _Traits(is_final=True, celery="FAILURE"),
    StepState.CANCELLED: _Traits(is_final=True, celery="REVOKED"),
    StepState.EXPIRED: _Traits(is_final=True, celery="REVOKED"),
    StepState.QUARANTINED: _Traits(is_final=True, celery="FAILURE"),
    StepState.SKIPPED: _Traits(is_final=True, celery="REVOKED"),
}
FINAL_STATES = frozenset(state for state in State if _TRAITS[StepState(state)].is_final)


def lua_states() -> str:
    """Return the traits of the states as Lua for the script."""
    final = ", ".join(f"{state} = true" for state, traits in _TRAITS.items() if traits.is_final)
    waits = ", ".join(f"{state} = true" for state, traits in _TRAITS.items() if traits.waits)
    celery = "".join(f"  {state} = '{traits.celery}',\n" for state, traits in _TRAITS.items())
    return f"local FINAL = {{ {final} }}\nlocal WAITS = {{ {waits} }}\nlocal CELERY_STATUS = {{\n{celery}}}"
