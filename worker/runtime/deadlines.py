"""The deadline of each child's body: a table in memory that the processes of a worker share.

A claim lasts for a lease; then another worker may run the job. A child enters here which body it runs; the custodian
extends the deadline after each confirmed renewal; the warden (`worker.upkeep.warden`) suspends a child whose deadline
has passed. It also interrupts and kills the body of an item of a map that needs longer than the limits that the child
entered here; those of a whole job are Celery's, which knows nothing of items. Times are those of `time.monotonic()`,
which all processes of a machine have in common.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CHILDREN = 1_024  # of one worker, at most
_KILLED = 64  # this many of the bodies killed last are kept for the main process
_ROWS = CHILDREN + _KILLED
_COLUMNS = 9  # each has 8 bytes per row
_NAME_BYTES = 1_024  # two bytes for the length, then a job's id of at most 255 characters
# Of a lease: the time the warden needs to notice, and by which clocks may differ.
_MARGIN_RATIO, _MARGIN_MIN_S = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a map with time limits of its own."""

    index: int
    interrupt_at: float  # time.monotonic(); infinite once it is interrupted
    kill_at: float  # time.monotonic()
    limit_s: float  # the hard limit


@dataclass(frozen=True, slots=True)
class Killed:
    """A body whose child the warden has killed: because of `item`, or else because its claim was not renewed."""

    job_id: str
    token: int
    item: Item | None


@dataclass(frozen=True, slots=True)
class Running:
    """A running body, its child and its claim."""

    row: int
    pid: int
    token: int  # of the claim; a later claim of the same job has a higher one
    job_id: str
    until: float  # time.monotonic()
    suspended_at: float  # time.monotonic(); 0 means that it is not suspended
    item: Item | None  # with time limits of its own

    @property
    def is_suspended(self) -> bool:
        return self.suspended_at > 0


def deadline(asked_at: float, lease_s: float) -> float:
    """Return until when a body may run if a call sent at `asked_at` granted or renewed its claim for `lease_s`."""
    return asked_at + lease_s - max(lease_s * _MARGIN_RATIO, _MARGIN_MIN_S)


class Deadlines:
    """The table: a row for each child, by its place in the pool. Each field is written by one process at a time."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Create a table that children inherit, or open the existing one behind a file descriptor."""
        size = 8 + _ROWS * (8 * _COLUMNS + _NAME_BYTES)
        if descriptor is None and sys.platform == "linux":
            descriptor = os.memfd_create("celeriac-deadlines")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        self._memory = mmap.mmap(-1 if descriptor is None else descriptor, size)
        whole, names_at = memoryview(self._memory), 8 + _ROWS * 8 * _COLUMNS
        columns = [whole[at : at + _ROWS * 8] for at in range(8, names_at, _ROWS * 8)]
        self._killed_count = whole[:8].cast("Q")
        self._pids, self._tokens, self._items, self._signalled = (column.cast("Q") for column in columns[:4])
        self._untils, self._suspended, *limits = (column.cast("d") for column in columns[4:])
        self._interrupt_ats, self._kill_ats, self._limits = limits
        self._names = whole[names_at:]

    def enter(self, row: int, pid: int) -> None:
        """Give a row to a child that has started and runs no body yet."""
        self._tokens[row], self._suspended[row], self._pids[row] = 0, 0.0, pid

    def begin(self, row: int, job_id: str, token: int, *, until: float) -> None:
        """Record that the body of this claim begins."""
        self._name(row, job_id)
        self._untils[row], self._items[row] = until, 0
        self._tokens[row] = token  # last, because the row is valid once it has a token

    def end(self, row: int) -> None:
        """Record that the child no longer runs a body."""
        self._tokens[row] = 0

    def begin_item(self, row: int, item: Item) -> None:
        """Record that the body runs for this item."""
        self._interrupt_ats[row], self._kill_ats[row], self._limits[row] = item.interrupt_at, item.kill_at, item.limit_s
        self._items[row] = item.index + 1  # last, because the others are valid once it is not 0

    def end_item(self, row: int) -> None:
        """Record that the item has ended. If the warden has sent a signal for it, that has arrived on return."""
        self._items[row] = 0
        while self._signalled[row]:
            time.sleep(0.001)
        time.sleep(0)  # a pending signal arrives at the latest on return from a system call

    def begin_signalling(self) -> None:
        """Clear what a warden that was killed while it sent a signal has left; the child would wait for it."""
        self._signalled[:] = memoryview(bytes(8 * _ROWS)).cast("Q")

    @contextmanager
    def signalling(self, body: Running) -> Iterator[bool]:
        """Yield whether the body still runs for its item, which the child does not end before the end of the block."""
        self._signalled[body.row] = 1
        try:
            yield self._tokens[body.row] == body.token and self._item(body.row) == body.item
        finally:
            self._signalled[body.row] = 0

    def interrupted(self, body: Running, item: Item, at: float) -> None:
        """Record that the body is interrupted, once for an item; from now on it has the whole time to clean up."""
        self._kill_ats[body.row] = at + (item.kill_at - item.interrupt_at)
        self._interrupt_ats[body.row] = math.inf

    def running(self) -> list[Running]:
        """Return the running bodies, and the suspended children."""
        tokens, suspended = self._tokens[:CHILDREN].tolist(), self._suspended[:CHILDREN].tolist()
        return [
            Running(row, self._pids[row], token, self._name_of(row), self._untils[row], suspended[row], self._item(row))
            for row, token in enumerate(tokens)
            if token or suspended[row]
        ]

    def put_off(self, body: Running, *, until: float) -> None:
        """Extend the deadline of a body, unless it has just ended."""
        if self._tokens[body.row] == body.token:
            self._untils[body.row] = max(until, self._untils[body.row])

    def suspend(self, body: Running, at: float) -> None:
        """Record since when its child is suspended; 0 means that it is not."""
        self._suspended[body.row] = at

    def kill(self, body: Running, item: Item | None = None) -> None:
        """Record that its child is killed: in the time of `item`, or else because its claim was not renewed."""
        number = self._killed_count[0]
        row = CHILDREN + number % _KILLED
        self._name(row, body.job_id)
        self._tokens[row], self._items[row] = body.token, 0
        if item is not None:
            self.begin_item(row, item)
        self._killed_count[0] = number + 1
        self.enter(body.row, 0)

    def killed(self, after: int) -> tuple[int, list[Killed]]:
        """Return how many bodies were killed so far, and each except the first `after`."""
        count = self._killed_count[0]
        rows = [CHILDREN + number % _KILLED for number in range(max(after, count - _KILLED), count)]
        return count, [Killed(self._name_of(row), self._tokens[row], self._item(row)) for row in rows]

    def _item(self, row: int) -> Item | None:
        number = self._items[row]
        if not number:
            return None
        return Item(number - 1, self._interrupt_ats[row], self._kill_ats[row], self._limits[row])

    def _name(self, row: int, job_id: str) -> None:
        text, at = job_id.encode(errors="surrogatepass")[: _NAME_BYTES - 2], row * _NAME_BYTES
        self._names[at : at + 2 + len(text)] = len(text).to_bytes(2) + text

    def _name_of(self, row: int) -> str:
        at = row * _NAME_BYTES
        length = int.from_bytes(self._names[at : at + 2])
        return bytes(self._names[at + 2 : at + 2 + length]).decode(errors="replace")


@dataclass(slots=True)
class _OwnRow:
    """The row of this process, if it is a child."""

    table: Deadlines | None = None
    row: int = 0


_own = _OwnRow()


def join(table: Deadlines, row: int) -> None:
    """Make this process the child that `row` describes."""
    table.enter(row, os.getpid())
    _own.table, _own.row = table, row


@contextmanager
def bounded(job_id: str, token: str, *, until: float) -> Iterator[None]:
    """Let the body in the block run only as long as its claim is renewed. Has no effect outside of a child."""
    if _own.table is None:
        yield
        return
    _own.table.begin(_own.row, job_id, int(token), until=until)
    try:
        yield
    finally:
        _own.table.end(_own.row)


@contextmanager
def entered(item: Item) -> Iterator[None]:
    """Let the warden limit the time of the body in the block, for `item`. Has no effect outside of a child."""
    table, row = _own.table, _own.row
    if table is None:
        yield
        return
    try:
        table.begin_item(row, item)
        try:
            yield
        finally:
            table.end_item(row)
    except BaseException:
        table.end_item(row)  # an interruption may have come before the first call had an effect
        raise
