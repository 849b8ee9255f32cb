"""The ledger's transitions in plain Python: what a call should answer, and what it should change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from shared.ledger.records import Entry
from tests.shared.ledger.model.names import HELD_BY_KEY, HELD_BY_PAUSE
from tests.shared.ledger.model.places import Places
from tests.shared.ledger.model.tasks import CELERY_STATUS, Task


class World(Places):
    """All that the ledger should know, and its transitions."""

    # -- accepting ------------------------------------------------------------------------------------------------

    def accept(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            job = self._create(entry)
            self._keep_lineage(job)
            if entry.retried_from in self.tasks:
                self.tasks[entry.retried_from].retried_as = job.id
            made = {step.id: self._create(step, job) for step in entry.steps}
            for step in made.values():
                step.after = [made[step_id] for step_id in step.entry.after or ()]
                step.before = [made[step_id] for step_id in step.entry.before or ()]
            job.steps = list(made.values())
            for step in job.steps:
                if step.entry.reused is not None:
                    self._reuse(step)
            for step in job.steps:
                if step.state != "succeeded" and step.waits_for:
                    self.enter(step, "waiting")
                elif step.state != "succeeded":
                    self._start_waiting(step)
            self._start_waiting(job)
            self.tell(job)

    def adopt(self, entry: Entry) -> Task:
        """Take a job in that came past the gateway."""
        job = self._create(entry)
        self.enter(job, "queued")
        self.tell(job)
        return job

    def _create(self, entry: Entry, job: Task | None = None) -> Task:
        task = self.tasks[entry.id] = Task(entry, job, has_message=entry.message is not None)
        if not entry.steps and entry.reused is None:
            self.counters[f"sent|{entry.kind}|{entry.queue}"] += 1
        if job is None:
            self.events[entry.id] = []
            self.counters[f"submitted|{entry.kind}"] += 1
        return task

    def _reuse(self, step: Task) -> None:
        assert step.entry.reused is not None
        step.state, step.celery, step.started = "succeeded", "SUCCESS", True
        step.result = step.entry.reused.result
        step.outcomes = [attempt["outcome"] for attempt in json.loads(step.entry.reused.attempts)]

    def _start_waiting(self, task: Task) -> None:
        if task.entry.expires_at is not None:
            task.expiry = "later" if task.entry.expires_at > 1 else "now"
        if task.entry.due_at is not None:
            task.due = "later"
            self.enter(task, "scheduled")
        else:
            self.enter(task, "queued")
            if task.has_message:
                self.publish(task, by_gateway=True)

    def _keep_lineage(self, job: Task) -> None:
        """Let the files of the jobs whose steps it uses again stay as long as its own."""
        if not any(step.reused for step in job.entry.steps):
            return
        source = self.tasks.get(job.entry.retried_from or "")
        while source:
            if source.ended:
                source.ended, source.prolonged = "later", True
            source = self.tasks.get(source.entry.retried_from or "")

    # -- work -----------------------------------------------------------------------------------------------------

    def claim(self, task: Task, *, delivery: str, owner: str) -> str:  # noqa: C901, PLR0911 - one return an answer
        if task.is_tolerated:
            return "succeeded"
        if task.is_final:
            return task.state
        if task.is_overdue:
            self.expire(task.root)
            return "expired"
        was_lost = False
        if task.state == "running":
            if task.delivery == delivery:
                return "run"
            if not task.lapsed or self.amnesty:
                return "busy"
            if self.lose(task, in_hand=True) != "republished":
                return task.state
            was_lost = True
        elif task.due == "later" or task.state == "waiting":
            return "early"
        if task.entry.outbox and (task.in_outbox or not task.publishes):
            task.in_outbox = None
            self.note_published(task)
        is_held = self._is_held_at_claim(task)
        if not is_held:
            self._run(task, delivery, owner)
        if was_lost and task.key:
            self.admit(task.key)
        return "held" if is_held else "run"

    def _is_held_at_claim(self, task: Task) -> bool:
        if task.queue not in self.paused and not self.is_full(task):
            return False
        task.has_message = True
        if task.state != "queued":
            task.due = None
            self.enter(task, "queued")
            self.tell(task)
        self.hold(task, HELD_BY_PAUSE if task.queue in self.paused else HELD_BY_KEY)
        if task.key and task.queue in self.paused:
            self.admit(task.key)
        return True

    def _run(self, task: Task, delivery: str, owner: str) -> None:
        self.unlist(task)
        self.enter(task, "running")
        task.started = task.has_message = True
        task.due, task.lapsed = None, False
        task.delivery, task.owner = delivery, owner
        task.outcomes.append(None)
        task.celery = "STARTED"
        self.tell(task)
        if task.job is None:
            return
        for before in task.after if len(task.outcomes) == 1 else []:
            if before.before == [task]:
                before.has_message, before.in_outbox = False, None
        if task.job.state == "queued":
            self.enter(task.job, "running")
            task.job.started = True
            self.tell(task.job)

    def _give_up_claim(self, task: Task) -> None:
        if task.token:
            task.stale_tokens.append(task.token)
        task.token, task.owner, task.lapsed = None, "", False

    def _close_attempt(self, task: Task, outcome: str) -> None:
        if not task.outcomes or task.outcomes[-1] is not None:
            return
        task.outcomes[-1] = outcome
        if outcome not in {"lost", "released"}:
            self.counters[f"ran|{task.entry.kind}"] += 1

    def progress(self, task: Task, logs: int) -> bool:
        self.events[task.root.id] += [("log", task.entry.step, None)] * logs
        self.events[task.root.id].append(("progress", task.entry.step, None))
        task.celery = "PROGRESS"
        return task.cancel_requested

    def succeed(self, task: Task, result: str) -> None:
        self._end_claim(task, "finish", "succeeded", result=result)

    def fail(self, task: Task, code: str) -> bool:
        """End it with an error, or as it was asked to; return whether it may fail."""
        state = "cancelled" if task.cancel_requested else "failed"
        self._end_claim(task, "finish", state, error="cancelled" if task.cancel_requested else code)
        return task.is_tolerated

    def _end_claim(self, task: Task, call: str, state: str, *, result: str | None = None, error: str = "") -> None:
        token, task.ended_by = task.token, task.owner
        self.settle(task, state, result=result, error=error)
        task.last_call = (call, token or "")

    def retry(self, task: Task, code: str) -> None:
        if self._delay(task, code, "retry", "retrying"):
            task.retries += 1

    def leave_to_others(self, task: Task, code: str) -> bool:
        """Leave it to a worker with the version that accepted it; return whether there is such a version."""
        if task.entry.contract is not None:
            self._delay(task, code, "give_back", "released")
        return task.entry.contract is not None

    def _delay(self, task: Task, code: str, call: str, outcome: str) -> bool:
        if task.cancel_requested:
            self._end_claim(task, call, "cancelled", error="cancelled")
            return False
        self._close_attempt(task, outcome)
        self.unlist(task)
        self.enter(task, "retrying")
        task.last_call = (call, task.token or "")
        self._give_up_claim(task)
        task.due, task.error, task.celery = "later", (code, None), "RETRY"
        self.tell(task)
        return True

    def release(self, task: Task, *, crashed: bool) -> str:
        if crashed or task.cancel_requested:
            return self.lose(task)
        self._close_attempt(task, "released")
        self.unlist(task)
        self._give_up_claim(task)
        self.give_back(task)
        self.tell(task)
        return "released"

    def lose(self, task: Task, *, in_hand: bool = False) -> str:
        """Do what is to be done when an owner is gone."""
        if task.cancel_requested:
            self.settle(task, "cancelled", error="cancelled")
            return "cancelled"
        task.crashes += 1
        self._close_attempt(task, "lost")
        if task.crashes >= task.entry.max_crashes:
            self.settle(task, "quarantined", error="quarantined")
            return "quarantined"
        self._give_up_claim(task)
        if in_hand:
            self.enter(task, "queued", again=True)
        else:
            self.give_back(task)
        self.tell(task)
        return "republished"

    # -- ends -----------------------------------------------------------------------------------------------------

    def expire(self, job: Task) -> None:
        self.settle(job, "expired", error="expired")
        self._close_steps(job, "expired")

    def cancel(self, task: Task) -> str:
        if task.is_final:
            return task.state
        if task.state == "running" and not task.steps:
            task.cancel_requested = True
            self.events[task.root.id].append(("cancel_requested", task.entry.step, None))
            return "requested"
        self.settle(task, "cancelled", error="cancelled")
        self._close_steps(task, "cancelled")
        return "cancelled"

    def settle(
        self,
        task: Task,
        state: str,
        *,
        result: str | None = None,
        error: str = "",
        step: str | None = None,
        alone: bool = False,
    ) -> None:
        self._close_attempt(task, state)
        self.unlist(task)
        self.enter(task, state)
        self._give_up_claim(task)
        task.due = None
        if not task.steps:
            self.counters[f"processed|{task.entry.kind}|{state}"] += 1
        task.result, task.error = result, (error, step) if error else None
        task.celery = CELERY_STATUS[state]
        self.tell(task)
        if task.job is not None:
            if not alone:
                self._step_ended(task, task.job)
            return
        self.counters[f"ended|{task.entry.kind}|{state}"] += 1
        task.ended, task.prolonged = "later", False
        task.awaits_callback = "callback_url" in task.entry.options
        for each in (task, *task.steps):
            each.has_message, each.in_outbox = False, None
        self._keep_lineage(task)

    def _step_ended(self, step: Task, job: Task) -> None:
        if not step.is_done:
            if not job.is_final:
                assert step.error is not None
                self.settle(job, step.state, error=step.error[0], step=step.entry.step)
                self._close_steps(job, "skipped")
            return
        for follower in step.before:
            if follower.state == "waiting" and follower.waits_for == 0:
                self.enter(follower, "queued")
                self.note_published(follower)
                self.tell(follower)
        if job.is_final:
            return
        self.events[job.id].append(("progress", None, None))
        if all(each.is_done for each in job.steps):
            self.settle(job, "succeeded", result=_result(job))

    def _close_steps(self, job: Task, state: str) -> None:
        for step in job.steps:
            if step.state == "running":
                step.cancel_requested = True
            elif not step.is_final:
                self.settle(step, state, error=state, alone=True)

    # -- forgetting -----------------------------------------------------------------------------------------------

    def is_referred(self, ids: Iterable[str]) -> bool:
        """Whether a live job names a file of one of these."""
        named = {f"artifact://{each}/" for each in ids}
        return any(not job.is_final and any(name in job.entry.params for name in named) for job in self.jobs())

    def forget(self, job: Task) -> list[str]:
        for step in job.steps:
            self.forgotten_steps[step.id] = job.id
        for task_id in job.ids:
            del self.tasks[task_id]
        del self.events[job.id]
        self.gone.add(job.id)
        return job.ids

    def forget_on_request(self, job: Task) -> str:
        """Take a job out now, unless something needs it; return the answer."""
        if job.ended and job.prolonged:
            return "referred"
        if not job.ended or any(step.state == "running" for step in job.steps):
            return "live"
        if self.is_referred(job.ids) or job.awaits_callback:
            return "referred"
        self.left_files.update(self.forget(job))
        return "forgotten"


def _result(job: Task) -> str:
    ends = [step for step in job.steps if not step.before]
    if len(ends) == 1:
        return ends[0].result or "null"
    failed = sum(step.is_tolerated for step in job.steps)
    return json.dumps({"succeeded_count": len(job.steps) - failed, "failed_count": failed})
