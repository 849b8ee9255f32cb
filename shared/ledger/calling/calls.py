"""Calls of the ledger's script on the event loop, and what can be said of those that break off.

Whatever was not sent has done nothing; whatever was sent and has no reply may have been done.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
from pydantic_core import to_json
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from shared.errors import LedgerFull, LedgerUnavailable, OutcomeUnknown
from shared.ledger.script import NOT_LOADED, READS, Library

Connection = Any  # redis.asyncio.connection.AbstractConnection, whose methods have no types
NO_ANSWER = (RedisError, OSError, TimeoutError)
_REFUSALS = (ResponseError, BusyLoadingError, AuthenticationError)  # replies by which a server says that it did nothing
_ONCE_MORE = Retry(NoBackoff(), 1, (redis.ConnectionError,))  # every connection is broken after a restart of the server
_DEFECTS = ("ERR", "REFUSED", "WRONGTYPE", "user_script")


@dataclass
class Asked:
    """What somebody asked the service for, which may take several calls of the ledger."""

    arrived_at: float  # in the loop's time: the bound counts from there
    has_changed: bool = False  # one of the calls has changed something


#: Who sets it is told truly: once something was changed, a failure is no longer "nothing was changed".
asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


def note_change() -> None:
    """Note that what was asked for is done in part."""
    if current := asked.get():
        current.has_changed = True


@dataclass
class Call:
    """A transition and its arguments; after a failure, whether the server may have done it."""

    transition: str
    arguments: Any
    may_be_done: bool = field(default=False, init=False)
    size_bytes: int = field(default=0, init=False)  # of the arguments as JSON

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.transition not in READS

    def told(self, failure: BaseException) -> Exception:
        """Return what is known after `failure`, one of `NO_ANSWER`; a reply that is a defect of ours as it is."""
        if isinstance(failure, ResponseError) and (known := told_by_reply(failure)):
            return known
        if self.may_be_done and self.changes:
            return OutcomeUnknown(f"the ledger did not answer in time: {type(failure).__name__}")
        return unavailable(failure)


class Script:
    """The script on one client's server."""

    def __init__(self, client: redis.asyncio.Redis, library: Library) -> None:
        self._pool: Any = client.connection_pool  # its methods have no types
        self._library = library

    async def run(self, call: Call) -> Any:
        """Return the script's reply, on any connection."""
        connection = await self.connected()
        try:
            return await self.run_on(connection, call)
        finally:
            await self.release(connection)

    async def connected(self) -> Connection:
        """Return a connection that is ready, for `run_on` and `release`."""
        return await self._pool.get_connection()

    async def release(self, connection: Connection) -> None:
        """Give a connection back."""
        await self._pool.release(connection)

    async def run_on(self, connection: Connection, call: Call) -> Any:
        """Return the script's reply. A connection that breaks is replaced once, and the call repeated."""

        async def ask() -> Any:
            try:
                return await _answer(connection, call, *command)
            except ResponseError as failure:
                if not str(failure).startswith(NOT_LOADED):
                    raise
            await self._load(connection, call)
            return await _answer(connection, call, *command)

        arguments = to_json(call.arguments)
        call.size_bytes = len(arguments)
        command = self._library.call(call.transition, arguments)
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
    """Return what is known after a call that did nothing, or only read."""
    current = asked.get()
    kind = OutcomeUnknown if current and current.has_changed else LedgerUnavailable
    return kind(f"the ledger does not answer: {type(failure).__name__}")


def told_by_reply(reply: ResponseError) -> Exception | None:
    """Return what an error reply means; None where the server is only not available."""
    text = str(reply)
    if isinstance(reply, OutOfMemoryError) or "OOM " in text or "MISCONF " in text:
        return LedgerFull("it refuses what is written")
    return reply if text.startswith(_DEFECTS) else None
