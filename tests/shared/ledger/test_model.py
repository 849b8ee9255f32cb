"""The ledger's state machine against a model: random sequences of transitions, right and wrong, in time and too late.

What can happen is in `model/`: `submitting`, `working`, `passing` (of time) and `asking` call the ledger and the model
with the same and compare the answers. After every call the ledger must agree with itself (`consistency`) and be what
the model says (`agreement`).
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.shared.ledger.model.asking import Asking
from tests.shared.ledger.model.passing import Passing
from tests.shared.ledger.model.submitting import SHAPES, Submitting
from tests.shared.ledger.model.working import Working
from tests.support.servers.services import Server

EXAMPLES = int(os.environ.get("CELERIAC_MODEL_EXAMPLES", "40"))  # sequences in a round; CI tries more
STEPS = 50
ROUNDS = 12  # at most; there is another one only while something of `SEEN` has not happened

SEEN = {  # what must have happened at least once: a rule that never applies is a check that cannot fail
    *(f"accept: {shape}" for shape in SHAPES),
    *(f"accept: {outcome}" for outcome in ("accepted", "taken", "replayed", "conflict", "with a file")),
    *(f"rerun: {what}" for what in ("of a job", "of a whole workflow", "with steps reused")),
    *(f"adopt: {what}" for what in ("run", "held", "forgotten job", "forgotten step")),
    *(f"claim: {answer}" for answer in ("run", "again", "busy", "early", "expired", "expired with its job", "unknown")),
    *(
        f"claim: {answer}"
        for answer in ("succeeded", "failed", "cancelled", "skipped", "run after a tolerated failure")
    ),
    *(f"claim: held by {why}" for why in ("queue_paused", "concurrency_limited")),
    *(f"succeed: {what}" for what in ("job", "step, job running", "step, job succeeded")),
    *(f"fail: {what}" for what in ("job", "step, job failed", "tolerated step, job running")),
    *(f"fail as owner: {state}" for state in ("queued", "running")),
    "retry: retrying",
    *(f"give back: {what}" for what in ("retrying", "cancelled", "kept")),
    *(f"end again: {call}" for call in ("finish, succeeded", "finish, failed", "retry, retrying")),
    *(f"release: {answer}" for answer in ("released", "republished", "refused")),
    *(f"renew: {answer}" for answer in ("ok", "lost", "ended")),
    *(f"comes due: {state}" for state in ("scheduled", "retrying")),
    *(f"published long ago: {where}" for where in ("lost", "there")),
    *(f"tend: {what}" for what in ("published", "expired", "expired workflow", "forgotten", "callback", "unpublished")),
    *(f"tend: {what}" for what in ("republished", "republished by those before it", "retention prolonged")),
    *(f"cancel: job, {what}" for what in ("queued cancelled", "scheduled cancelled", "running requested")),
    *(f"cancel: step, {what}" for what in ("queued cancelled", "waiting cancelled", "running requested")),
    *(f"cancel: workflow, {what}" for what in ("queued cancelled", "running cancelled")),
    *(f"callback: {answer}" for answer in ("accepted", "known")),
    *(f"forget: {answer}" for answer in ("forgotten", "live", "referred")),
    "let go: some",
    "outbox: published queued",
}


class Machine(Submitting, Working, Passing, Asking):
    """All that can happen."""


@pytest.fixture(scope="module")
def valkey(own_valkey: Server) -> Server:
    """Return a database into which nothing else writes: these tests compare it as a whole."""
    return own_valkey


def test_the_ledger_is_the_state_machine(valkey: Server) -> None:
    """Whatever order transitions come in, the ledger, its indexes, events, counters and Celery's results agree."""
    seen: Counter[str] = Counter()
    machine = type("LedgerMachine", (Machine,), {"port": valkey.port, "seen": seen})
    limits = settings(
        max_examples=EXAMPLES,
        backend="hypothesis-urandom",  # the other one tries each sequence six times, with few changes
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    expected = SEEN | {each.name for each in Machine.actions}
    for _ in range(ROUNDS):  # chance may leave a rare outcome out of one round, but hardly of several
        run_state_machine_as_test(machine, settings=limits)
        if expected <= seen.keys():
            return
    assert sorted(expected - seen.keys()) == []
