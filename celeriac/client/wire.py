"""What a plan asks its form to do, and what it gets.

A plan is a generator. It yields requests, pauses and calls that block, and is sent what became of them; it does no I/O.
`celeriac/client/caller.py` and `acaller.py` do it: one with threads that wait, one with tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")
READ_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """Send this and return the `Answer`. Transport errors are thrown into the plan."""

    method: str
    path: str  # percent-encoded
    query: Mapping[str, Any] = field(default_factory=dict)  # None and empty values are left out
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Callable[[], Iterator[bytes]] | None = None  # a function, so that it can be sent again
    read_timeout_s: float = READ_TIMEOUT_S
    is_repeatable: bool = False  # whether it may be sent again though the first may have been carried out
    is_streamed: bool = False  # the content is not read; `Read` returns its parts
    part_bytes: int | None = None  # size of the parts; None: as they come


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the gateway."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    sent: int = 1  # how often the request was sent

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode()

    @property
    def document(self) -> Any:
        """The content as JSON; None if there is none. Raises `ValueError` if it is something else."""
        return json.loads(self.content) if self.content else None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Return the next part of the streamed answer, None at its end. Transport errors are thrown into the plan."""


@dataclass(frozen=True, slots=True)
class Work:
    """Call this, which may block, and return what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Give(Generic[T]):
    """Give this item to the caller, who iterates."""

    item: T


Plan: TypeAlias = Generator[Any, Any, T]  # returns a value
Items: TypeAlias = Generator[Any, Any, None]  # gives items to a caller who iterates


def sent(request: Request) -> Plan[Answer]:
    """Send a request."""
    answer: Answer = yield request
    return answer


def next_part() -> Plan[bytes | None]:
    """Read the next part of the streamed answer."""
    part: bytes | None = yield Read()
    return part


def worked(call: Callable[[], T]) -> Plan[T]:
    """Call what may block."""
    made: T = yield Work(call)
    return made
