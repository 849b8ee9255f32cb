"""Rules of the workers: claims in time and too late, and how they end."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st

from shared.errors import ClaimLost
from shared.ledger.records import Claim, Refusal
from tests.shared.ledger.model.machine import LONG_S, OWNERS, LedgerMachine, action, message
from tests.shared.ledger.model.tasks import Task
from tests.support.ledgers import ERROR, RESULT

PROGRESS = json.dumps({"current": 1, "total": 2, "unit": "rows", "message": ""})
CODE = json.loads(ERROR)["code"]
_owners = st.sampled_from(OWNERS)


def follows_a_failure(task: Task) -> bool:
    return any(before.is_tolerated for before in task.after)


class Working(LedgerMachine):
    """See the module."""

    @action(14, when=lambda self: any(self.world.lists.values()))
    def deliver(self, data: st.DataObject) -> None:
        """Take the next message off a list, whatever has become of its job."""
        owner = data.draw(_owners, label="owner")
        lists = {name: messages for name, messages in sorted(self.world.lists.items()) if messages}
        stale = [name for name, messages in lists.items() if messages[-1].id not in self.world.tasks]
        name = data.draw(st.sampled_from([*lists, *stale * 5]))
        task_id = json.loads(str(self.client.rpop(name)))["headers"]["id"]
        assert task_id == self.world.lists[name].pop().id
        if task_id in self.world.tasks:
            self._claim(self.world.tasks[task_id], owner)
        else:
            assert self._ask(task_id, owner, "") == Refusal("unknown", "")
            self.saw("claim: unknown")

    @action(6, when=lambda self: any(task.was_out for task in self.world.tasks.values()))
    def deliver_a_copy(self, data: st.DataObject) -> None:
        """Deliver a message from a broker elsewhere, or again, or before its time."""
        owner = data.draw(_owners, label="owner")
        early = {"waiting", "scheduled"}
        tasks = [task for task in self.tasks() if task.was_out or (task.state in early and task.due != "now")]
        task = self.pick(data, tasks, rather=lambda task: follows_a_failure(task) or self.world.is_full(task))
        self._claim(task, owner)

    @action(when=lambda self: self.tasks("running"))
    def claim_again(self, data: st.DataObject) -> None:
        """Ask for a claim again whose answer was lost on its way."""
        task = self.pick(data, self.tasks("running"))
        answer = self._ask(task.id, task.owner, task.delivery)
        assert isinstance(answer, Claim)
        assert answer.token == task.token
        self.saw("claim: again")

    def _claim(self, task: Task, owner: str) -> None:
        self.begin()
        delivery, was_overdue = f"delivery-{self.world.turn}", task.is_overdue and task.job is not None
        answer = self._ask(task.id, owner, delivery)
        expected = self.world.claim(task, delivery=delivery, owner=owner)
        if expected == "run":
            assert isinstance(answer, Claim), answer
            task.token = answer.token
            assert (answer.attempt, answer.retries) == (len(task.outcomes), task.retries)
            upstream = [None if before.result is None else json.loads(before.result) for before in task.after]
            assert json.loads(answer.upstream) == upstream
        else:
            assert answer == Refusal(expected, (task.result or "null") if expected == "succeeded" else "")
        self.saw(f"claim: {expected}{' with its job' if was_overdue and expected == 'expired' else ''}")
        if None in (upstream if expected == "run" else ()):
            self.saw("claim: run after a tolerated failure")
        if expected == "held":
            self.saw(f"claim: held by {task.held_by}")

    def _ask(self, task_id: str, owner: str, delivery: str) -> Claim | Refusal:
        worker = f"{owner}@host"
        return self.ledger.claim(
            task_id, owner=owner, worker=worker, lease_s=LONG_S, message=message(task_id), delivery=delivery
        )

    @action(when=lambda self: self.tasks("running"))
    def progress(self, data: st.DataObject) -> None:
        logs = data.draw(st.sampled_from([0, 1, 2]), label="logs")
        task = self.pick(data, self.tasks("running"), rather=lambda task: task.cancel_requested)
        self.begin()
        stop = self.ledger.progress(task.id, token=task.token or "", progress=PROGRESS, logs=['{"n": 1}'] * logs)
        assert stop == self.world.progress(task, logs)
        self.saw(f"progress: {'stop' if stop else 'go on'}")

    @action(10, when=lambda self: self.tasks("running"))
    def succeed(self, data: st.DataObject) -> None:
        task = self.pick(data, self.tasks("running"))
        self.begin()
        self.ledger.succeed(task.id, token=task.token or "", result=RESULT)
        self.world.succeed(task, RESULT)
        self._saw_end("succeed", task)

    @action(5, when=lambda self: self.tasks("running"))
    def fail(self, data: st.DataObject) -> None:
        task = self.pick(data, self.tasks("running"), rather=lambda task: task.entry.may_fail)
        self.begin()
        is_tolerated = self.ledger.fail(task.id, token=task.token or "", error=ERROR)
        assert is_tolerated == self.world.fail(task, CODE)
        self._saw_end("fail", task)

    def _saw_end(self, call: str, task: Task) -> None:
        whole = f"step, job {task.job.state}" if task.job else "job"
        self.saw(f"{call}: {'tolerated ' if task.is_tolerated else ''}{whole}")

    @action(when=lambda self: self.tasks("running", "queued"))
    def fail_as_owner(self, data: st.DataObject) -> None:
        """End it without its child: a hard time limit, or a message that no worker can run."""
        task = self.pick(data, self.tasks("running", "queued"))
        self.begin()
        self.saw(f"fail as owner: {task.state}")
        assert self.ledger.fail_as_owner(task.id, owner=task.owner or "w1", error=ERROR, unclaimed=True)
        self.world.settle(
            task,
            "cancelled" if task.cancel_requested else "failed",
            error="cancelled" if task.cancel_requested else CODE,
        )

    @action(3, when=lambda self: self.tasks("running"))
    def retry(self, data: st.DataObject) -> None:
        task = self.pick(data, self.tasks("running"), rather=lambda task: task.cancel_requested)
        self.begin()
        self.ledger.retry(task.id, token=task.token or "", delay_s=LONG_S, error=ERROR)
        self.world.retry(task, CODE)
        self.saw(f"retry: {task.state}")

    @action(2, when=lambda self: self.tasks("running"))
    def give_back(self, data: st.DataObject) -> None:
        """Leave it to a worker with another version; what no version has accepted is kept."""
        task = self.pick(data, self.tasks("running"), rather=lambda task: task.cancel_requested)
        self.begin()
        is_left = self._give_back(task, task.token or "")
        assert is_left == self.world.leave_to_others(task, CODE)
        self.saw(f"give back: {task.state if is_left else 'kept'}")

    def _give_back(self, task: Task, token: str) -> bool:
        waits = {"for_s": 2 * LONG_S, "least_s": LONG_S, "most_s": LONG_S}
        return self.ledger.give_back(task.id, token=token, contract="v1", error=ERROR, **waits)

    @action(2, when=lambda self: any(task.last_call for task in self.tasks()))
    def end_again(self, data: st.DataObject) -> None:
        """Ask again for an end whose answer was lost on its way; the other end is refused."""
        task = self.pick(data, [task for task in self.tasks() if task.last_call])
        assert task.last_call is not None
        call, token = task.last_call
        if call == "finish":
            assert self.ledger.fail(task.id, token=token, error=ERROR) == task.is_tolerated
            with pytest.raises(ClaimLost):
                self.ledger.retry(task.id, token=token, delay_s=1, error=ERROR)
        else:
            if call == "retry":
                self.ledger.retry(task.id, token=token, delay_s=1, error=ERROR)
            else:
                assert self._give_back(task, token)
            with pytest.raises(ClaimLost):
                self.ledger.succeed(task.id, token=token, result=RESULT)
        self.saw(f"end again: {call}, {task.state}")

    @action(when=lambda self: any(task.stale_tokens for task in self.tasks()))
    def end_too_late(self, data: st.DataObject) -> None:
        """Whoever has lost the claim may write nothing."""
        task = self.pick(data, [task for task in self.tasks() if task.stale_tokens])
        for token in task.stale_tokens:
            with pytest.raises(ClaimLost):
                self.ledger.progress(task.id, token=token, progress=PROGRESS)
            if task.last_call is None or token != task.last_call[1]:
                with pytest.raises(ClaimLost):
                    self.ledger.succeed(task.id, token=token, result=RESULT)
                with pytest.raises(ClaimLost):
                    self.ledger.retry(task.id, token=token, delay_s=1, error=ERROR)
                with pytest.raises(ClaimLost):
                    self._give_back(task, token)
        self.saw("end too late")

    @action(3, when=lambda self: self.tasks("running"))
    def release(self, data: st.DataObject) -> None:
        crashed = data.draw(st.booleans(), label="crashed")
        task = self.pick(data, self.tasks("running"), rather=lambda task: task.cancel_requested)
        self.begin()
        answer = self.ledger.release(task.id, owner=task.owner, crashed=crashed)
        assert answer == self.world.release(task, crashed=crashed)
        self.saw(f"release: {answer}")

    @action(when=lambda self: self.tasks())
    def release_of_another(self, data: st.DataObject) -> None:
        task = self.pick(data, self.tasks())
        assert self.ledger.release(task.id, owner="nobody", crashed=True) == "refused"
        self.saw("release: refused")

    @action(when=lambda self: self.tasks())
    def renew(self, data: st.DataObject) -> None:
        owner = data.draw(_owners, label="owner")
        task = self.pick(data, self.tasks(), rather=lambda task: task.ended_by)
        self.begin()
        expected = "waiting"
        if task.state == "running" and task.owner == owner:
            expected, task.lapsed = "cancel" if task.cancel_requested else "ok", False
        elif task.is_final and task.ended_by == owner:
            expected = "ended"
        elif task.is_final or task.state == "running":
            expected = "lost"
        answers = self.ledger.renew([task.id, self.next_id()], owner=owner, lease_s=LONG_S)
        assert list(answers.values()) == [expected, "unknown"]
        self.saw(f"renew: {expected}")
