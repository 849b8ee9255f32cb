"""The states of a job and of a step, and the transitions between them.

    accept ──► scheduled ──due──► queued ──claim──► running ──finish──► succeeded
       └──────────────────────────►│ ▲                │ ├──finish──► failed
                                   │ │◄─release/lost──┘ ├──cancel──► cancelled
                                   │ └──due── retrying ◄┤retry, give_back
                                   │                    └──lost too often──► quarantined
    cancel: scheduled, queued, retrying ──► cancelled      expire: the same three ──► expired

A queued job is in the broker, or held. Its state is `queued` in both cases, and `waiting_reason` is the difference:

    with the broker ──claim (or publish) while its queue is paused──► queue_paused ──resume──► with the broker
    with the broker ──claim while its concurrency key is full──► concurrency_limited ──a place is free──► the broker
    with the broker ──claim before the turn of its rate key──► rate_limited ──its turn comes──► the broker

`shared/ledger/script` has the transitions; a step can also be ``waiting`` (its predecessor has not
ended) and ``skipped`` (a predecessor did not succeed).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Self


class _Traits(NamedTuple):
    is_final: bool = False
    waits: bool = False  # for its start or a worker; `waiting_reason` says for which
    celery: str = "PENDING"  # the state for Celery's clients


_NO_TRAITS = _Traits()


class _Named(StrEnum):
    """A name of a state; members are written with their traits, and have these as attributes."""

    is_final: bool
    waits: bool
    celery: str

    def __new__(cls, name: str, traits: _Traits = _NO_TRAITS) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.is_final, member.waits, member.celery = traits
        return member


class State(_Named):
    """The life of a job."""

    SCHEDULED = "scheduled", _Traits(waits=True)
    QUEUED = "queued", _Traits(waits=True)
    RUNNING = "running", _Traits(celery="STARTED")
    RETRYING = "retrying", _Traits(waits=True, celery="RETRY")
    SUCCEEDED = "succeeded", _Traits(is_final=True, celery="SUCCESS")
    FAILED = "failed", _Traits(is_final=True, celery="FAILURE")
    CANCELLED = "cancelled", _Traits(is_final=True, celery="REVOKED")
    EXPIRED = "expired", _Traits(is_final=True, celery="REVOKED")
    QUARANTINED = "quarantined", _Traits(is_final=True, celery="FAILURE")


class OnlyOfSteps(_Named):
    """The states that a step can have and a job cannot."""

    WAITING = "waiting"
    SKIPPED = "skipped", _Traits(is_final=True, celery="REVOKED")


FINAL_STATES = frozenset(state for state in State if state.is_final)
STEP_STATES = (OnlyOfSteps.WAITING, *State, OnlyOfSteps.SKIPPED)


def lua_states() -> str:
    """Return the traits of the states as Lua for the script."""
    final = ", ".join(f"{state} = true" for state in STEP_STATES if state.is_final)
    waits = ", ".join(f"{state} = true" for state in STEP_STATES if state.waits)
    celery = "".join(f"  {state} = '{state.celery}',\n" for state in STEP_STATES)
    return f"local FINAL = {{ {final} }}\nlocal WAITS = {{ {waits} }}\nlocal CELERY_STATUS = {{\n{celery}}}"
