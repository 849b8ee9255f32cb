"""Rules of time: what is far ahead comes, what was promised lapses, and the keeper makes its round.

The ledger's clock is its server's, so these rules move the times that were written down, and not the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from hypothesis import strategies as st

from shared.ledger.records import Gone
from tests.shared.ledger.model import rounds
from tests.shared.ledger.model.machine import LONG_S, LedgerMachine, action, message
from tests.shared.ledger.model.names import key
from tests.shared.ledger.model.places import Message
from tests.shared.ledger.model.tasks import Task
from tests.shared.ledger.model.world import World
from tests.support.ledgers import numbered

LONG_AGO_MS = 1


def _of(world: World, wanted: Callable[[Task], bool]) -> list[Task]:
    return [task for task in world.tasks.values() if wanted(task)]


def _can_come_due(task: Task) -> bool:
    # a workflow's steps come due with it
    return task.due == "later" and (task.job is None or task.state == "retrying")


def _can_expire(task: Task) -> bool:
    return task.expiry == "later" and not task.started and not task.is_final


def _can_lapse(task: Task) -> bool:
    return task.state == "running" and not task.steps and not task.lapsed


def _can_be_lost(task: Task) -> bool:
    return task.published is not None and not task.published_long_ago


def _can_grow_old_in_the_outbox(task: Task) -> bool:
    return task.in_outbox == "new"


def _can_lose_its_place(task: Task) -> bool:
    return task.admitted == "new"


def _can_be_past_its_retention(task: Task) -> bool:
    return task.ended == "later"


def _some(wanted: Callable[[Task], bool]) -> Callable[[LedgerMachine], bool]:
    return lambda machine: any(map(wanted, machine.world.tasks.values()))


class Passing(LedgerMachine):
    """See the module."""

    @action(4, when=_some(_can_come_due))
    def comes_due(self, data: st.DataObject) -> None:
        job = self.pick(data, _of(self.world, _can_come_due))
        for task in (job, *job.steps):
            if task.due == "later" and (task is job or task.state == "scheduled"):
                self.write_field(task, due_at=LONG_AGO_MS)
                self._put_back("due", task)
                task.due = "now"
        self.saw(f"comes due: {job.state}")

    @action(2, when=_some(_can_expire))
    def expiry_comes(self, data: st.DataObject) -> None:
        job = self.pick(data, _of(self.world, _can_expire))
        self.write_field(job, expires_at=LONG_AGO_MS)
        self._put_back("expiring", job)
        job.expiry = "now"
        self.saw("expiry comes")

    @action(3, when=_some(_can_lapse))
    def claim_lapses(self, data: st.DataObject) -> None:
        task = self.pick(data, _of(self.world, _can_lapse))
        self.write_field(task, claim_until=LONG_AGO_MS)
        self._put_back("claims", task)
        task.lapsed = True
        self.saw("claim lapses")

    @action(3, when=_some(_can_be_lost))
    def is_published_long_ago(self, data: st.DataObject) -> None:
        """Lose a message: a worker took it and died before it could claim. Or let it lie for long."""
        is_off_the_list = data.draw(st.sampled_from([True, True, False]), label="is_off_the_list")
        task = self.pick(data, _of(self.world, _can_be_lost))
        waiting = self.world.lists.get(task.broker_list, [])
        latest = Message(task.id, task.publishes)
        if is_off_the_list and latest in waiting:
            text = numbered(task.entry.message or message(task.id), task.publishes)
            assert self.client.lrem(task.broker_list, 1, text) == 1
            waiting.remove(latest)
        self.write_field(task, published_at=LONG_AGO_MS)
        self.client.zadd(key("published", task.broker_list), {task.id: LONG_AGO_MS}, xx=True)
        task.published, task.published_long_ago = LONG_AGO_MS, True
        self.saw(f"published long ago: {'lost' if is_off_the_list else 'there'}")

    @action(when=_some(_can_grow_old_in_the_outbox))
    def grows_old_in_the_outbox(self, data: st.DataObject) -> None:
        task = self.pick(data, _of(self.world, _can_grow_old_in_the_outbox))
        self._put_back("outbox", task)
        task.in_outbox = "stale"
        self.saw("outbox: old")

    @action(30, when=_some(_can_lose_its_place))
    def does_not_take_its_place(self, data: st.DataObject) -> None:
        task = self.pick(data, _of(self.world, _can_lose_its_place))
        self.client.zadd(key("admitted-key", task.key or ""), {task.id: LONG_AGO_MS}, xx=True)
        task.admitted = "stale"
        self.saw("place: not taken")

    @action(2, when=_some(_can_be_past_its_retention))
    def retention_ends(self, data: st.DataObject) -> None:
        job = self.pick(data, _of(self.world, _can_be_past_its_retention))
        self._put_back("ended", job)
        job.ended, job.prolonged = "now", False
        self.saw("retention ends")

    def _put_back(self, name: str, task: Task) -> None:
        self.client.zadd(key(name), {task.id: LONG_AGO_MS}, xx=True)

    @action(6)
    def tend(self, data: st.DataObject) -> None:
        """Make a round; another keeper that wants to make one is sent away."""
        asks_too = data.draw(st.booleans(), label="asks_too")
        self._tend()
        assert not asks_too or self.ledger.tend(owner="another keeper") is None

    @action(2, when=lambda self: not self.world.amnesty and self.tasks("running"))
    def outage(self, _: st.DataObject) -> None:
        """Let the ledger have been away for longer than a lease, so that no owner could renew."""
        self.client.set(key("tended_at"), LONG_AGO_MS)
        self.world.amnesty = True
        self._tend()
        self.saw("outage")

    @action(6, when=lambda self: self.world.amnesty)
    def outage_is_over(self, _: st.DataObject) -> None:
        self.client.delete(key("amnesty"))
        self.world.amnesty = False

    def _tend(self) -> None:
        self.begin()
        done = self.ledger.tend(
            owner="keeper", lock_s=LONG_S, lease_s=LONG_S, grace_s=LONG_S, outbox_grace_s=LONG_S, limit=200
        )
        assert done is not None
        actions = [(action.what, action.id) for action in done.actions]
        assert Counter(actions) == Counter(rounds.tend(self.world))
        for what, task_id in actions:
            self.saw(f"tend: {what}")
            if what == "forgotten":
                is_job = task_id in self.world.gone
                assert isinstance(self.ledger.read(task_id), Gone) == is_job
        self._saw_what_is_special(actions)

    def _saw_what_is_special(self, actions: Iterable[tuple[str, str]]) -> None:
        for what, task_id in actions:
            task = self.world.tasks.get(task_id)
            if what == "expired" and task and task.steps:
                self.saw("tend: expired workflow")
            if what == "republished" and task and not task.has_message:
                self.saw("tend: republished by those before it")
        if any(job.ended == "later" and job.prolonged for job in self.world.jobs()):
            self.saw("tend: retention prolonged")
