"""What the rules of the ledger's state machine share."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared.ledger.client import Ledger
from tests.shared.ledger.model.agreement import AGREEMENT
from tests.shared.ledger.model.consistency import CONSISTENCY
from tests.shared.ledger.model.names import key
from tests.shared.ledger.model.snapshot import snapshot
from tests.shared.ledger.model.tasks import Task
from tests.shared.ledger.model.world import World

OWNERS = ("w1", "w2")
LONG_S = 600.0  # longer than a run: time passes only where a rule says so
T = TypeVar("T")
When = Callable[[Any], Any]


@dataclass(frozen=True)
class Action:
    """One thing that can happen next."""

    name: str
    weight: int
    when: When


def action(weight: int = 1, *, when: When = lambda _: True) -> Callable[[T], T]:
    """Let a method be one of the things that can happen, this often compared with others, as long as `when` holds.

    A rule each would be hypothesis' own way; but it leaves half of the rules out of each run, and what takes four
    kinds of rules in a row (a workflow fails, is repeated in part, and is forgotten) hardly ever happened.
    """

    def mark(method: T) -> T:
        method.action = Action(method.__name__, weight, when)  # type: ignore[attr-defined]
        return method

    return mark


class LedgerMachine(RuleBasedStateMachine):
    """A ledger, the model of it, and what both must have in common after every rule."""

    port: ClassVar[int]
    actions: ClassVar[list[Action]]
    seen: ClassVar[Counter[str]]  # how often each rule came out how, over all runs

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self.client.flushall()
        self.ledger = Ledger(self.client)
        self.world = World()
        self.made = 0
        self.written_ms: int | None = None  # when the last rule had written all that it did

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        marked = (getattr(getattr(cls, name), "action", None) for name in dir(cls))
        found = [mark for mark in marked if isinstance(mark, Action)]
        cls.actions = sorted(found, key=lambda mark: -mark.weight)  # hypothesis has a liking for what comes first

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        possible = [each.name for each in self.actions if each.when(self) for _ in range(each.weight)]
        chosen = data.draw(st.sampled_from(possible), label="then")
        self.seen[chosen] += 1
        getattr(self, chosen)(data)

    def teardown(self) -> None:
        self.client.close()

    @invariant()
    def the_ledger_agrees_with_itself_and_with_the_model(self) -> None:
        self.written_ms = now_ms()
        found = snapshot(self.client)
        for agrees in CONSISTENCY:
            agrees(found)
        for as_predicted in AGREEMENT:
            as_predicted(found, self.world)

    def begin(self) -> None:
        """Begin a rule: in a millisecond of its own, for by that the ledger knows what comes first."""
        self.world.turn += 1
        last = self.written_ms or now_ms()
        while now_ms() == last:
            pass
        self.written_ms = None

    def saw(self, what: str) -> None:
        self.seen[what] += 1

    def next_id(self) -> str:
        """Return an id: the same ones in each run, so that a run can be repeated; they sort by their making."""
        self.made += 1
        return f"00000000-0000-7000-8000-{self.made:012d}"

    def pick(self, data: st.DataObject, tasks: Iterable[Task], *, rather: Callable[[Task], Any] | None = None) -> Task:
        """Draw one of the tasks: rather one that is `rather`, has not ended, or has to do with a workflow."""
        ids: list[str] = []
        for task in tasks:
            weight = 1 + 2 * (not task.is_final) + 2 * bool(task.job or task.steps)
            ids += [task.id] * (weight * 5 if rather and rather(task) else weight)
        return self.world.tasks[data.draw(st.sampled_from(ids), label="of")]

    def tasks(self, *states: str) -> list[Task]:
        """Return the jobs without steps, and the steps, in these states, or all."""
        return [task for task in self.world.tasks.values() if not task.steps and (not states or task.state in states)]

    def write_field(self, task: Task, **fields: int) -> None:
        """Change the times of a record, as if they were those long ago."""
        self.client.hset(key("job", task.id), mapping={name: str(value) for name, value in fields.items()})


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def message(task_id: str, group: str | None = None) -> str:
    return json.dumps({"headers": {"id": task_id, "group": group}, "body": "", "properties": {}})
