"""Calls of the ledger's script on the event loop, and what is known when a call fails.

A call that was not sent has done nothing; a call that was sent and got no reply may have been carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis.asyncio
from pydantic_core import to_json
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from shared.errors import LedgerFull, LedgerUnavailable, OutcomeUnknown
from shared.ledger.script import NOT_LOADED, READS, Library
from shared.ledger.server import is_full

Connection = Any  # redis.asyncio.connection.AbstractConnection, whose methods have no types
NO_ANSWER = (RedisError, OSError, TimeoutError)
_REFUSALS = (ResponseError, BusyLoadingError, AuthenticationError)  # with these replies the server has done nothing
# Every connection is broken after a restart of the server, and may lead to a replica after a failover.
_ONCE_MORE = Retry(NoBackoff(), 1, (redis.ConnectionError, ReadOnlyError))
_DEFECTS = ("ERR", "REFUSED", "WRONGTYPE", "user_script")


class Change(Protocol):
    """A change that was asked for."""

    @property
    def may_be_done(self) -> bool:
        """Whether it was sent, and nothing says that it was not carried out."""


@dataclass
class Asked:
    """One request to the service; it may need several calls of the ledger, also at the same time."""

    arrived_at: float  # in the loop's time; its time limit starts here
    has_changed: bool = False  # one of the calls has changed something
    open: list[Change] = field(default_factory=list)  # those without a reply

    @property
    def may_have_changed(self) -> bool:
        """Whether a failure must not be reported as "nothing was changed"."""
        return self.has_changed or any(change.may_be_done for change in self.open)


#: The current request, if set.
asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


def note_change() -> None:
    """Record that the current request has changed something."""
    if current := asked.get():
        current.has_changed = True


@contextmanager
def noted(change: Change) -> Iterator[None]:
    """Register a change with the current request until there is a reply. If the block fails, it stays registered."""
    current = asked.get()
    if current is None:
        yield
        return
    current.open.append(change)
    yield
    current.open.remove(change)


@dataclass(eq=False)
class Call:
    """A transition with its arguments, and whether the server may have carried it out."""

    transition: str
    arguments: Any
    columns: Sequence[str] = ()
    until_ms: int | None = None  # by the server's clock: later it does nothing
    may_be_done: bool = field(default=False, init=False)
    size_bytes: int = field(default=0, init=False)  # of the arguments

    @property
    def changes(self) -> bool:
        """Whether its transition writes."""
        return self.transition not in READS

    def told(self, failure: BaseException) -> Exception:
        """Return the exception for a call that ended with `failure`, one of `NO_ANSWER`.

        A reply that shows a defect of the service is returned as it is.
        """
        if isinstance(failure, ResponseError) and (known := told_by_reply(failure)):
            return known
        if self.may_be_done and self.changes:
            return OutcomeUnknown(f"the ledger did not answer in time: {type(failure).__name__}")
        return unavailable(failure)


class Script:
    """Runs the script with the connections of one client."""

    def __init__(self, client: redis.asyncio.Redis, library: Library) -> None:
        self._pool: Any = client.connection_pool  # its methods have no types
        self._library = library

    async def run(self, call: Call) -> Any:
        """Run the script on any connection and return its reply."""
        connection = await self.connected()
        try:
            return await self.run_on(connection, call)
        finally:
            await self.release(connection)

    async def connected(self) -> Connection:
        """Take a connection from the pool, for `run_on`; give it back with `release`."""
        return await self._pool.get_connection()

    async def release(self, connection: Connection) -> None:
        """Give a connection back to the pool."""
        await self._pool.release(connection)

    async def run_on(self, connection: Connection, call: Call) -> Any:
        """Run the script and return its reply. If the connection breaks, connect again and repeat the call once."""

        async def ask() -> Any:
            try:
                return await _answer(connection, call, *command)
            except ResponseError as failure:
                if not str(failure).startswith(NOT_LOADED):
                    raise
            await self._load(connection, call)
            return await _answer(connection, call, *command)

        arguments = to_json(call.arguments if call.until_ms is None else call.arguments | {"until": call.until_ms})
        call.size_bytes = len(arguments) + sum(map(len, call.columns))
        command = self._library.call(call.transition, arguments, *call.columns)
        return await _ONCE_MORE.call_with_retry(ask, lambda _: connection.disconnect())

    async def _load(self, connection: Connection, call: Call) -> None:
        loading, reply = self._library.loading(), None
        with suppress(StopIteration):
            while True:
                reply = await _answer(connection, call, *loading.send(reply))


async def _answer(connection: Connection, call: Call, *command: Any) -> Any:
    await connection.connect()
    await connection.check_health()
    before, call.may_be_done = call.may_be_done, True
    try:
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()
    except _REFUSALS:
        call.may_be_done = before
        raise


def unavailable(failure: BaseException) -> LedgerUnavailable | OutcomeUnknown:
    """Return the exception for a call that did nothing or only read.

    It is `OutcomeUnknown` if another call of the same request has changed something, or may have.
    """
    current = asked.get()
    kind = OutcomeUnknown if current and current.may_have_changed else LedgerUnavailable
    return kind(f"the ledger does not answer: {type(failure).__name__}")


def late_at_ms(failure: BaseException) -> int | None:
    """Return the server's time if this is its reply to a call that came too late, and was not carried out."""
    word, _, now = str(failure).partition(" ")
    return int(now) if isinstance(failure, ResponseError) and word == "LATE" else None


def told_by_reply(reply: ResponseError) -> Exception | None:
    """Return the exception for an error reply; None if it only means that the server is unavailable."""
    if is_full(reply):
        return LedgerFull("it refuses writes")
    return reply if str(reply).startswith(_DEFECTS) else None
