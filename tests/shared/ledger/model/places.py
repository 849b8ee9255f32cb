"""Where jobs and steps wait, in plain Python: with the broker, in the outbox, or held until their turn."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from tests.shared.ledger.model.names import HELD_BY_KEY, HELD_BY_PAUSE
from tests.shared.ledger.model.tasks import LIMITS, Task

RECENT = 10.0**9  # the score of what was published in this run; what tests make old has a small one
COPIES_PASSED = 10  # at the head of a list
Event = tuple[str, str | None, str | None]  # what, of which step, into which state


class Message(NamedTuple):
    """What lies on a list of the broker."""

    id: str  # of its job or step
    publication: int | None  # its number; none for a copy that only brings Celery to go on


class Places:
    """All that the ledger should know, and the moves of what waits."""

    def __init__(self) -> None:
        self.turn = 0
        self.tasks: dict[str, Task] = {}
        self.gone: set[str] = set()
        self.left_files: set[str] = set()  # of jobs that were deleted: the keeper removes what the caller does not
        self.forgotten_steps: dict[str, str] = {}  # to their job
        self.paused: set[str] = set()
        self.lists: dict[str, list[Message]] = {}  # of the broker: the newest first
        self.events: dict[str, list[Event]] = {}
        self.counters: Counter[str] = Counter()
        self.promises: dict[str, tuple[str, list[str]]] = {}  # idempotency key -> fingerprint, ids
        self.chords: dict[str, int] = {}  # whose parts Celery is to count again
        self.held_queues: set[str] = set()
        self.limited_keys: set[str] = set()
        self.amnesty = False

    def jobs(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.job is None]

    def tell(self, task: Task) -> None:
        self.events[task.root.id].append(("state", task.entry.step, task.state))

    def enter(self, task: Task, state: str, *, again: bool = False) -> None:
        before, task.state = task.state, state
        if before == "queued":
            task.held_by = None
        if state == "queued" and not (again and task.queued):
            task.queued = self.turn
        if task.key and not task.steps and before in {"queued", "running"}:
            task.admitted = None
            if state != "running" and not again:
                self.admit(task.key)

    def publish(self, task: Task, *, by_gateway: bool = False) -> None:
        if task.queue in self.paused:
            self.hold(task, HELD_BY_PAUSE)
        else:
            self.put(task, by_gateway=by_gateway)

    def put(self, task: Task, *, by_gateway: bool = False) -> None:
        task.was_out = True
        if task.entry.outbox:
            task.in_outbox = "new" if by_gateway else "stale"
        else:
            self.note_published(task)
            self.lists.setdefault(task.broker_list, []).insert(0, Message(task.id, task.publishes))

    def put_first(self, task: Task, score: float | None = None) -> None:
        task.was_out = True
        if task.entry.outbox:
            task.in_outbox = "stale"
            return
        if score is None:
            overtaken, _ = self.first_known(task.broker_list)
            if overtaken is None:
                overtaken = min(self.published(task.broker_list).values(), default=math.inf)
            score = overtaken - 1
        self.note_published(task)
        self.lists.setdefault(task.broker_list, []).append(Message(task.id, task.publishes))
        if score < math.inf:
            task.published = score

    def publish_first(self, task: Task, score: float | None = None) -> None:
        if task.queue in self.paused:
            self.hold(task, HELD_BY_PAUSE)
        else:
            self.put_first(task, score)

    def give_back(self, task: Task) -> None:
        """Queue what has lost its worker; only then is its place given, to whoever is first."""
        self.enter(task, "queued", again=True)
        self.publish_first(task)
        if task.key:
            self.admit(task.key)

    def first_known(self, name: str) -> tuple[float | None, set[str]]:
        """Return the score of the first message that is its job's latest, and the ids of those before it."""
        published, passed = self.published(name), set[str]()
        waiting = self.lists.get(name, [])[::-1]
        for task_id, publication in waiting[:COPIES_PASSED]:
            if task_id in published and self.tasks[task_id].publishes == (publication or 1):
                return published[task_id], passed
            passed.add(task_id)
        return (math.inf if len(waiting) < COPIES_PASSED else None), passed

    def published(self, name: str) -> dict[str, float]:
        """Return what is published on a list and not claimed yet, with its scores."""
        return {
            task.id: task.published
            for task in self.tasks.values()
            if task.published is not None and task.broker_list == name
        }

    def note_published(self, task: Task) -> None:
        task.publishes += 1
        task.was_out, task.published_long_ago = True, False
        if not task.entry.outbox:
            task.published = RECENT

    def hold(self, task: Task, why: str) -> None:
        task.held_by, task.published, task.in_outbox = why, None, None
        if why == HELD_BY_PAUSE:
            self.held_queues.add(task.queue)
        if task.key:
            task.admitted = None
            if why == HELD_BY_KEY:
                self.limited_keys.add(task.key)

    def admit(self, key: str) -> None:
        while True:
            of_key = [task for task in self.tasks.values() if task.key == key and not task.steps]
            waiting = sorted((task for task in of_key if task.held_by == HELD_BY_KEY), key=lambda task: task.order)
            if not waiting:
                self.limited_keys.discard(key)
                return
            if sum(task.state == "running" or task.admitted is not None for task in of_key) >= LIMITS[key]:
                return
            first = waiting[0]
            if first.queue in self.paused:
                self.hold(first, HELD_BY_PAUSE)
            else:
                first.held_by, first.admitted = None, "new"
                self.put_first(first)

    def is_full(self, task: Task) -> bool:
        """Whether as many jobs of its key run as may."""
        running = [each for each in self.tasks.values() if each.state == "running" and each.key == task.key]
        return task.key is not None and len(running) >= LIMITS[task.key]

    def let_go(self, queue: str) -> list[str]:
        """Publish what a pause held, if it is over."""
        if queue in self.paused:
            return []
        held = sorted(
            (task for task in self.tasks.values() if task.held_by == HELD_BY_PAUSE and task.queue == queue),
            key=lambda task: task.order,
        )
        for task in held:
            task.held_by = None
            self.put(task)
        self.held_queues.discard(queue)
        return [task.id for task in held]

    def unlist(self, task: Task) -> None:
        task.published = task.in_outbox = None
