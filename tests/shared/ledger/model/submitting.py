"""Rules of accepting: jobs, workflows, repetitions, and jobs that come past the gateway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from shared.ledger.records import Claim, Entry, Record, Refusal, Submission
from tests.shared.ledger.model.machine import LONG_S, OWNERS, LedgerMachine, action, message
from tests.shared.ledger.model.tasks import KEY_OF_QUEUE, LIMITS, RETENTION_MS
from tests.support.ledgers import MAX_CRASHES, composed_for

FAR_AHEAD_MS = 9_999_999_999_999
MOST_TASKS = 30
KINDS = ("acme.shout_text", "acme.add_numbers")
SHAPES: dict[str, dict[str, str]] = {  # each step, and those that it waits for
    "single": {"a": ""},
    "chain": {"a": "", "b": "a", "c": "b"},
    "group": {"a": "", "b": ""},
    "chord": {"a": "", "b": "", "c": "ab"},
    "fork": {"a": "", "b": "a", "c": "a"},
    "diamond": {"a": "", "b": "a", "c": "a", "d": "bc"},
}


@dataclass(frozen=True)
class Wishes:
    """What a job may be submitted with."""

    priority: int
    queue: str
    is_scheduled: bool
    expiry: str | None
    outbox: bool
    wants_callback: bool
    tag: str | None
    schedule: str | None
    unique: str | None

    def fields(self) -> dict[str, Any]:
        return {
            "kind": KINDS[self.priority % 2],
            "contract": "v2",
            "queue": self.queue,
            "priority": self.priority,
            "retention_ms": RETENTION_MS,
            "max_crashes": MAX_CRASHES,
            "max_retries": 2,
            "due_at": FAR_AHEAD_MS if self.is_scheduled else None,
            "expires_at": {None: None, "later": FAR_AHEAD_MS, "now": 1}[self.expiry],
            "outbox": self.outbox,
            "options": json.dumps({"callback_url": "https://example.com/hook"}) if self.wants_callback else "{}",
            "tags": (self.tag,) if self.tag else (),
            "schedule": self.schedule,
            "unique_key": self.unique,
        }


WISHES = st.builds(
    Wishes,
    priority=st.sampled_from([4, 9, 0]),
    queue=st.sampled_from(["etl", "etl", "ml"]),
    is_scheduled=st.sampled_from([False, False, False, True]),
    expiry=st.sampled_from([None, None, None, None, "later", "later", "now"]),
    outbox=st.sampled_from([False, False, False, True]),
    wants_callback=st.booleans(),
    tag=st.sampled_from([None, "t"]),
    schedule=st.sampled_from([None, None, "s"]),
    unique=st.sampled_from([None, None, None, None, "u", "v"]),
)
_has_key = st.sampled_from([True, True, False])
_shapes = st.sampled_from(list(SHAPES))
_may_fail = st.sets(st.sampled_from("abcd"), max_size=3)


class Submitting(LedgerMachine):
    """See the module."""

    @initialize(jobs=st.lists(st.tuples(WISHES, _has_key), min_size=1, max_size=3))
    def begin_with_jobs(self, jobs: list[tuple[Wishes, bool]]) -> None:
        for wishes, has_key in jobs:
            self._submit([self._job(wishes, has_key=has_key)])

    @initialize(wishes=WISHES, shape=_shapes, may_fail=_may_fail)
    def begin_with_a_workflow(self, wishes: Wishes, shape: str, may_fail: set[str]) -> None:
        self._submit([self._workflow(SHAPES[shape], may_fail, {}, wishes.fields())])

    @action(2, when=lambda self: len(self.world.tasks) < MOST_TASKS)
    def accept(self, data: st.DataObject) -> None:
        wishes = data.draw(WISHES, label="wishes")
        has_key = data.draw(_has_key, label="has_key")
        promise = data.draw(st.sampled_from([None, "k1", "k1", "k2"]), label="promise")
        fingerprint = data.draw(st.sampled_from("ab"), label="fingerprint")
        count = data.draw(st.sampled_from([1, 1, 2]), label="count")
        self._submit([self._job(wishes, has_key=has_key) for _ in range(count)], promise, fingerprint)

    @action(when=lambda self: self.world.tasks and len(self.world.tasks) < MOST_TASKS)
    def accept_with_a_file_of(self, data: st.DataObject) -> None:
        wishes = data.draw(WISHES, label="wishes")
        maker = self.pick(data, self.world.tasks.values())
        self.saw("accept: with a file")
        self._submit([self._job(wishes, params=json.dumps({"source": f"artifact://{maker.id}/rows.parquet"}))])

    @action(3, when=lambda self: len(self.world.tasks) < MOST_TASKS)
    def accept_workflow(self, data: st.DataObject) -> None:
        wishes = data.draw(WISHES, label="wishes")
        shape = data.draw(_shapes, label="shape")
        may_fail = data.draw(_may_fail, label="may_fail")
        self.saw(f"accept: {shape}")
        self._submit([self._workflow(SHAPES[shape], may_fail, {}, wishes.fields())])

    def _submit(self, entries: Sequence[Entry], promise: str | None = None, fingerprint: str = "") -> None:
        self.begin()
        answer = self.ledger.accept(Submission(entries, idempotency_key=promise, fingerprint=fingerprint))
        known = self.world.promises.get(promise or "")
        ids = [entry.id for entry in entries]
        taken = self._taken(entries)
        if known is None and taken:
            assert (answer.outcome, *answer.ids, answer.state, answer.refused) == ("taken", *taken)
        elif known is None:
            assert (answer.outcome, list(answer.ids)) == ("accepted", ids)
            self.world.accept(entries)
            if promise:
                self.world.promises[promise] = (fingerprint, ids)
        elif known[0] == fingerprint:
            outcome = "replayed" if self.world.tasks.keys() & known[1] else "gone"
            assert (answer.outcome, list(answer.ids)) == (outcome, known[1])
        else:
            assert (answer.outcome, answer.ids) == ("conflict", ())
        self.saw(f"accept: {answer.outcome}")

    def _taken(self, entries: Sequence[Entry]) -> tuple[str, str, str] | None:
        """Return the job that has the unique key of one of these, its state, and the id of the latter."""
        tasks = self.world.tasks.values()
        held = {task.entry.unique_key: (task.id, task.state) for task in tasks if not task.is_final}
        for entry in entries:
            if entry.unique_key and entry.unique_key in held:
                return (*held[entry.unique_key], entry.id)
            held[entry.unique_key] = (entry.id, "queued")
        return None

    def _job(self, wishes: Wishes, *, has_key: bool = False, **more: Any) -> Entry:
        job_id, concurrency = self.next_id(), KEY_OF_QUEUE[wishes.queue]
        if has_key:
            more |= {"concurrency_key": concurrency, "concurrency_limit": LIMITS[concurrency]}
        made = Entry(**{"id": job_id, "params": "{}", "message": message(job_id), **wishes.fields(), **more})
        return replace(made, message=composed_for(made)) if made.params == "{}" else made  # the others keep it whole

    def _workflow(
        self, shape: dict[str, str], may_fail: set[str], reused: dict[str, Record], fields: dict[str, Any]
    ) -> Entry:
        """Return an entry as the planner makes it: steps without anything to wait for have a message."""
        job_id = self.next_id()
        ids = {name: self.next_id() for name in shape}
        of_step = {
            name: fields[name] for name in ("queue", "priority", "retention_ms", "max_crashes", "max_retries", "outbox")
        }

        def step(number: int, name: str) -> Entry:
            to_do = [before for before in shape[name] if before not in reused]
            is_first = name not in reused and not to_do
            return Entry(
                **of_step,
                id=ids[name],
                kind=KINDS[number % 2],
                params="{}",
                message=message(ids[name], group=f"group-{job_id}") if is_first else None,
                due_at=fields["due_at"] if is_first else None,
                job_id=job_id,
                step=name,
                after=tuple(ids[before] for before in shape[name]),
                before=tuple(ids[other] for other in shape if name in shape[other]),
                may_fail=name in may_fail,
                reused=reused.get(name),
            )

        steps = tuple(step(number, name) for number, name in enumerate(shape))
        return Entry(**{"id": job_id, "params": "{}", "steps": steps, **fields})

    @action(3, when=lambda self: any(job.is_final for job in self.world.jobs()) and len(self.world.tasks) < MOST_TASKS)
    def rerun(self, data: st.DataObject) -> None:
        only_failed = data.draw(st.sampled_from([True, True, False]), label="only_failed")
        wishes = data.draw(WISHES, label="wishes")
        ended = [job for job in self.world.jobs() if job.is_final]
        in_part = [job for job in ended if 0 < sum(step.state == "succeeded" for step in job.steps) < len(job.steps)]
        source = self.pick(data, ended + in_part * 3)
        fields = wishes.fields() | {"retried_from": source.id}
        if not source.steps:
            self._submit([self._job(wishes, retried_from=source.id)])
            self.saw("rerun: of a job")
            return
        found = self.ledger.read(source.id)
        assert isinstance(found, Record)
        reused = {step.step or "": step for step in found.steps if step.state == "succeeded" and only_failed}
        if len(reused) == len(source.steps):
            return
        names = {step.id: step.entry.step or "" for step in source.steps}
        shape = {names[step.id]: "".join(names[before.id] for before in step.after) for step in source.steps}
        may_fail = {names[step.id] for step in source.steps if step.entry.may_fail}
        self._submit([self._workflow(shape, may_fail, reused, fields)])
        self.saw("rerun: with steps reused" if reused else "rerun: of a whole workflow")

    @action()
    def adopt(self, data: st.DataObject) -> None:
        wishes = data.draw(WISHES, label="wishes")
        owner = data.draw(st.sampled_from(OWNERS), label="owner")
        plain = replace(wishes, is_scheduled=False, expiry=None, wants_callback=False, schedule=None, unique=None)
        entry = self._job(plain)
        self.begin()
        answer = self._claim_adopting(entry, owner, entry.id)
        job = self.world.adopt(entry)
        became = self.world.claim(job, delivery="adopted", owner=owner)
        if became == "run":
            assert isinstance(answer, Claim)
            job.token = answer.token
        else:
            assert answer == Refusal(became, "")
        self.saw(f"adopt: {became}")

    @action(2, when=lambda self: self.world.gone)
    def adopt_what_was_forgotten(self, data: st.DataObject) -> None:
        as_step = data.draw(st.sampled_from([True, True, False]), label="as_step")
        steps = self.world.forgotten_steps
        forgotten = sorted(steps) if as_step and steps else sorted(self.world.gone)
        task_id = data.draw(st.sampled_from(forgotten))
        entry = Entry(
            id=task_id,
            kind=KINDS[0],
            queue="etl",
            priority=4,
            params="{}",
            retention_ms=RETENTION_MS,
            max_crashes=1,
            max_retries=0,
        )
        self.begin()
        assert self._claim_adopting(entry, OWNERS[0], steps.get(task_id, task_id)) == Refusal("unknown", "")
        self.saw("adopt: forgotten step" if task_id in steps else "adopt: forgotten job")

    def _claim_adopting(self, entry: Entry, owner: str, root: str) -> Claim | Refusal:
        return self.ledger.claim(
            entry.id,
            owner=owner,
            worker=f"{owner}@host",
            lease_s=LONG_S,
            message=message(entry.id),
            delivery="adopted",
            adopt=entry,
            root=root,
        )
