"""The ledger's state machine against a model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from shared.errors import ClaimLost
from shared.ledger.client import Ledger
from shared.ledger.records import Claim, Gone, Refusal, Submission
from shared.ledger.states import FINAL_STATES, State
from tests.support.ledgers import ERROR, MAX_CRASHES, RESULT, claim, entry, lapse, record, tended
from tests.support.servers.services import Server

LIMITS = {"crm": 1, "warehouse": 2}  # of concurrency keys


@dataclass
class Model:
    """What the ledger should know of a job."""

    state: str = "queued"
    token: str | None = None
    stale_tokens: tuple[str, ...] = ()
    crashes: int = 0
    cancel_requested: bool = False
    key: str | None = None

    def end(self, state: str) -> None:
        self.state = state
        self.drop_token()

    def drop_token(self) -> None:
        if self.token:
            self.stale_tokens += (self.token,)
        self.token = None

    def crash(self) -> None:
        self.drop_token()
        if self.cancel_requested:
            self.state = "cancelled"
            return
        self.crashes += 1
        self.state = "quarantined" if self.crashes >= MAX_CRASHES else "queued"


class LedgerMachine(RuleBasedStateMachine):
    """Random transitions, right and wrong ones, by owners in time and too late."""

    port: int
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self.client.flushall()
        self.ledger = Ledger(self.client)
        self.models: dict[str, Model] = {}
        self.paused = False

    def teardown(self) -> None:
        self.client.close()

    def running_with(self, key: str) -> set[str]:
        return {job_id for job_id, model in self.models.items() if (model.state, model.key) == ("running", key)}

    @rule(target=jobs, priority=st.sampled_from([0, 4, 9]), key=st.sampled_from([None, *LIMITS]))
    def accept(self, priority: int, key: str | None) -> str:
        job = entry(priority=priority, concurrency_key=key, concurrency_limit=LIMITS.get(key or "", 1))
        reply = self.ledger._call_raw("accept", [Submission([job]).arguments()])
        assert reply[0][0] == "accepted"
        self.models[job.id] = Model(key=key)
        return job.id

    @rule(job_id=jobs)
    def claim(self, job_id: str) -> None:
        model, answer = self.models[job_id], claim(self.ledger, job_id)
        is_full = model.key is not None and len(self.running_with(model.key)) >= LIMITS[model.key]
        if model.state == "queued" and (self.paused or is_full):
            assert answer == Refusal("held", "")
        elif model.state == "queued":
            assert isinstance(answer, Claim)
            model.state, model.token = "running", answer.token
        else:
            expected = {"running": "busy", "retrying": "early"}.get(model.state, model.state)
            assert isinstance(answer, Refusal)
            assert answer.why == expected

    @rule(job_id=jobs, succeed=st.booleans())
    def finish(self, job_id: str, succeed: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        model = self.models[job_id]
        if model.token is None:
            return
        if succeed:
            self.ledger.succeed(job_id, token=model.token, result=RESULT)
            model.end("succeeded")
        else:
            self.ledger.fail(job_id, token=model.token, error=ERROR)
            model.end("cancelled" if model.cancel_requested else "failed")

    @rule(job_id=jobs)
    def finish_too_late(self, job_id: str) -> None:
        model = self.models[job_id]
        ended_with = {"succeeded", "failed", "cancelled"}  # by its own finish: asked again, that holds
        for token in model.stale_tokens[: -1 if model.state in ended_with else None]:
            with pytest.raises(ClaimLost):
                self.ledger.succeed(job_id, token=token, result=RESULT)

    @rule(job_id=jobs)
    def retry(self, job_id: str) -> None:
        model = self.models[job_id]
        if model.token is not None:
            self.ledger.retry(job_id, token=model.token, delay_s=3_600, error=ERROR)
            if model.cancel_requested:
                model.end("cancelled")
            else:
                model.drop_token()
                model.state = "retrying"

    @rule(job_id=jobs, crashed=st.booleans())
    def release(self, job_id: str, crashed: bool) -> None:  # noqa: FBT001
        model = self.models[job_id]
        reply = self.ledger.release(job_id, owner="w1", crashed=crashed)
        if model.state != "running":
            assert reply == "refused"
        elif crashed or model.cancel_requested:
            model.crash()
        else:
            model.drop_token()
            model.state = "queued"

    @rule(job_id=jobs)
    def owner_vanishes(self, job_id: str) -> None:
        if self.models[job_id].state == "running":
            lapse(self.client, job_id)
            tended(self.ledger)
            self.models[job_id].crash()

    @rule(job_id=jobs)
    def falls_due(self, job_id: str) -> None:
        if self.models[job_id].state == "retrying":
            self.client.zadd("celeriac:due", {job_id: 1})
            tended(self.ledger)
            self.models[job_id].state = "queued"

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        model = self.models[job_id]
        self.ledger.cancel(job_id, reason="r")
        if model.state == "running":
            model.cancel_requested = True
        elif model.state not in FINAL_STATES:
            model.end("cancelled")

    @rule()
    def pause(self) -> None:
        self.ledger.call("pause", {"queue": "etl"})
        self.paused = True

    @rule()
    def resume(self) -> None:
        self.ledger.call("resume", {"queue": "etl"})
        self.paused = False
        tended(self.ledger)

    @rule(job_id=consumes(jobs))
    def forget(self, job_id: str) -> None:
        if self.models[job_id].state in FINAL_STATES:
            self.client.zadd("celeriac:ended", {job_id: 1})
            assert ("forgotten", job_id) in tended(self.ledger)
            assert self.ledger.read(job_id) == Gone()
            del self.models[job_id]

    @invariant()
    def ledger_agrees_with_the_model(self) -> None:
        by_state: dict[str, set[str]] = {}
        for job_id, model in self.models.items():
            assert record(self.ledger, job_id).state == model.state
            by_state.setdefault(model.state, set()).add(job_id)
        for state in State:
            assert set(self.client.zrange(f"celeriac:state:{state}", 0, -1)) == by_state.get(state, set())
        assert set(self.client.zrange("celeriac:claims", 0, -1)) == by_state.get("running", set())
        assert set(self.client.zrange("celeriac:due", 0, -1)) == by_state.get("retrying", set())
        published = {
            job_id for key in self.client.keys("celeriac:published:*") for job_id in self.client.zrange(key, 0, -1)
        }
        waiting = [set(self.client.zrange(f"celeriac:{name}:etl", 0, -1)) for name in ("backlog", "held", "limited")]
        backlog, held, limited = waiting
        assert published == backlog
        assert backlog | held | limited == by_state.get("queued", set())
        assert len(backlog) + len(held) + len(limited) == len(by_state.get("queued", set()))
        assert set(self.client.zrange("celeriac:running:etl", 0, -1)) == by_state.get("running", set())
        assert self.paused or not held

    @invariant()
    def places_of_a_key_are_neither_overbooked_nor_left_empty(self) -> None:
        for key, limit in LIMITS.items():
            running = self.running_with(key)
            assert set(self.client.smembers(f"celeriac:running-key:{key}")) == running
            assert len(running) <= limit
            admitted = {str(job_id) for job_id in self.client.zrange(f"celeriac:admitted-key:{key}", 0, -1)}
            assert all(self.models[job_id].state == "queued" for job_id in admitted)
            if self.client.zcard(f"celeriac:limited-key:{key}"):
                assert len(running) + len(admitted) >= limit

    @invariant()
    def celery_agrees_with_the_ledger(self) -> None:
        expected = {
            "running": {"STARTED", "PROGRESS"},
            "retrying": {"RETRY"},
            "succeeded": {"SUCCESS"},
            "failed": {"FAILURE"},
            "quarantined": {"FAILURE"},
            "cancelled": {"REVOKED"},
        }
        for job_id, model in self.models.items():
            if model.state in expected:
                stored = json.loads(str(self.client.get(f"celery-task-meta-{job_id}")))
                assert stored["status"] in expected[model.state]


def test_the_ledger_is_the_state_machine(valkey: Server) -> None:
    """Whatever order transitions come in, the ledger, its indexes and Celery's results say the same."""
    machine = type("Machine", (LedgerMachine,), {"port": valkey.port})
    limits = settings(max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=limits)
