"""What the ledger should know of one job or step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shared.ledger.records import Entry
from tests.shared.ledger.model.names import list_of

LIMITS = {"crm": 1, "warehouse": 2}  # of concurrency keys
KEY_OF_QUEUE = {"etl": "crm", "ml": "warehouse"}  # one each: else the order in which two give places were open
RETENTION_MS = 60_000
FINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "quarantined", "skipped"})
CELERY_STATUS = {
    "succeeded": "SUCCESS",
    "failed": "FAILURE",
    "quarantined": "FAILURE",
    "cancelled": "REVOKED",
    "expired": "REVOKED",
    "skipped": "REVOKED",
}

Time = Literal["later", "now"]  # far ahead, or come


@dataclass(eq=False)
class Task:
    """A job, or a step of one."""

    entry: Entry
    job: Task | None = None  # of a step
    steps: list[Task] = field(default_factory=list)
    after: list[Task] = field(default_factory=list)
    before: list[Task] = field(default_factory=list)
    state: str = ""
    # where it waits
    queued: int = 0  # the turn at which it was queued
    held_by: str | None = None
    admitted: Literal["new", "stale"] | None = None  # a free place was given to it
    published: float | None = None  # its score among what is published: only the order counts
    published_long_ago: bool = False
    in_outbox: Literal["new", "stale"] | None = None
    was_out: bool = False  # a message of it has been with the broker: it can be delivered
    publishes: int = 0
    due: Time | None = None
    expiry: Time | None = None
    # its attempts
    token: str | None = None
    owner: str = ""
    delivery: str = ""
    lapsed: bool = False
    outcomes: list[str | None] = field(default_factory=list)
    stale_tokens: list[str] = field(default_factory=list)
    last_call: tuple[str, str] | None = None  # the call that ended the last claim, and the claim's token
    retries: int = 0
    crashes: int = 0
    started: bool = False
    cancel_requested: bool = False
    # what came of it
    result: str | None = None
    error: tuple[str, str | None] | None = None  # its code, and the step that it comes from
    celery: str | None = None  # the status that Celery reads
    has_message: bool = False
    retried_as: str | None = None
    ended_by: str | None = None
    ended: Time | None = None  # of a job that has ended: its retention is over then
    prolonged: bool = False  # it stays longer than its own retention
    awaits_callback: bool = False

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def queue(self) -> str:
        return self.entry.queue

    @property
    def key(self) -> str | None:
        return self.entry.concurrency_key

    @property
    def root(self) -> Task:
        """The job that it is, or is a step of."""
        return self.job or self

    @property
    def broker_list(self) -> str:
        return list_of(self.entry.queue, self.entry.priority)

    @property
    def order(self) -> tuple[int, int, str]:
        """By which those that wait take turns."""
        return -self.entry.priority, self.queued, self.id

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def is_tolerated(self) -> bool:
        return self.entry.may_fail and self.state in {"failed", "quarantined"}

    @property
    def is_done(self) -> bool:
        """Whether what follows it may go on."""
        return self.state == "succeeded" or self.is_tolerated

    @property
    def waits_for(self) -> int:
        return sum(not before.is_done for before in self.after)

    @property
    def is_overdue(self) -> bool:
        """Whether it, or its job, should have started by now and has not."""
        return self.root.expiry == "now" and not self.root.started and not self.started

    @property
    def ids(self) -> list[str]:
        return [self.id, *(step.id for step in self.steps)]
