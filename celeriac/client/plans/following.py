"""Follow a job: its events, its log, its end."""

from __future__ import annotations

import codecs
import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from celeriac.client.answers import Event, Job, log_line
from celeriac.client.failures import JobFailed, NotEnded, Refused, Unreachable
from celeriac.client.gateway import Gateway
from celeriac.client.plans.asking import Pauses, asked, asked_document, read, unreachable
from celeriac.client.plans.jobs import get, path_of
from celeriac.client.wire import Give, Items, Plan, next_part
from shared.ledger.states import State

if TYPE_CHECKING:
    from celeriac.client.plans.jobs import Reference, ResultType

_SILENCE_S = 45.0  # a stream has comments more often, so a longer silence means a dead connection
_LONGEST_POLL_S = 30.0
_LINES = 1_000  # of one page of a log
_NO_CONTENT = 204


class EventParser:
    """Events from the bytes of an event stream (WHATWG HTML, 9.2.6); comments are keep-alives."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._name, self._id, self._lines = "message", "", list[str]()

    def events(self, part: bytes) -> Iterator[Event]:
        """Yield the events that this part completes."""
        *lines, self._rest = (self._rest + self._decoder.decode(part)).split("\n")
        for line in lines:
            yield from self._read(line.removesuffix("\r"))

    def _read(self, line: str) -> Iterator[Event]:
        if not line:
            if self._lines:
                text = "\n".join(self._lines)
                yield Event(self._id, self._name, json.loads(text), text)
            self._name, self._lines = "message", []
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._lines.append(value)
            case "id":
                self._id = value


class Feed:
    """The events of a job, one after the other to its end. After a cut it goes on behind the last one that came."""

    def __init__(self, gateway: Gateway, job: Reference, after: str | None = None) -> None:
        self._gateway = gateway
        self._job = job
        self._last_id = after
        self._ready: deque[Event] = deque()
        self._parser: EventParser | None = None  # of the open stream
        self._pauses = Pauses()
        self._is_over = False

    def next(self) -> Plan[Event | None]:
        """Return the next event, None behind the last. Raises `Refused`, `Unreachable`."""
        while not self._ready:
            if self._parser is None and not self._is_over:
                yield from self._open()
            if self._parser is None:
                return None
            yield from self._read(self._parser)
        event = self._ready.popleft()
        self._last_id = event.id or self._last_id
        if event.ends_job:
            self._parser, self._is_over = None, True
        return event

    def _open(self) -> Plan[None]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        path = f"{path_of(self._job)}/events"
        answer = yield from asked(
            self._gateway, read(path, headers=headers, read_timeout_s=_SILENCE_S, is_streamed=True)
        )
        if answer.status == _NO_CONTENT:
            self._is_over = True
        elif answer.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
            raise Unreachable(f"{self._gateway.shown}{path} is not a stream of events.")
        else:
            self._parser = EventParser()

    def _read(self, parser: EventParser) -> Plan[None]:
        try:
            part = yield from next_part()
        except httpx.TransportError as lost:
            self._parser = None
            yield from self._pause(unreachable(self._gateway, lost))
            return
        if part is not None:
            self._pauses = Pauses()
            self._ready.extend(parser.events(part))
            return
        self._parser = None
        if self._last_id is None and (yield from get(self._gateway, self._job, None)).has_ended:
            self._is_over = True  # without an event to continue after, the gateway cannot say so
            return
        yield from self._pause(Unreachable(f"The gateway at {self._gateway.shown} ends the stream of events."))

    def _pause(self, failure: Unreachable) -> Plan[None]:
        return self._pauses.after(failure, self._gateway.retries.for_s)


def stream(gateway: Gateway, job: Reference, after: str | None) -> Items:
    """Give the events of a job to its end."""
    feed = Feed(gateway, job, after)
    while (event := (yield from feed.next())) is not None:
        yield Give(event)


def logs(gateway: Gateway, job: Reference, *, step: str | None, follow: bool) -> Items:
    """Give the lines of a job's log: those that there are, or with `follow` until it ends."""
    if follow:
        feed = Feed(gateway, job)
        while (event := (yield from feed.next())) is not None:
            if event.name == "log" and step in {None, event.step}:
                yield Give(log_line(event.document))
        return
    query: dict[str, Any] = {"limit": _LINES, "step": step}
    while True:
        page = (yield from asked_document(gateway, read(f"{path_of(job)}/logs", query=query))).document
        for line in page["lines"]:
            yield Give(log_line(line))
        if (after := page["next_after"]) is None:
            return
        query = {**query, "after": after}


def wait(
    gateway: Gateway, job: Reference, result_type: ResultType, *, timeout_s: float | None, raise_on_failure: bool
) -> Plan[Job[Any]]:
    """Return a job when it has ended.

    By its events; with a time limit, or where they do not arrive (some proxies hold streams back), by polling.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    found = yield from get(gateway, job, result_type)
    if deadline is None and not found.has_ended:
        with suppress(Unreachable, Refused):
            yield from _until_final_event(Feed(gateway, job))
        found = yield from get(gateway, job, result_type)
    while not found.has_ended:
        left_s = _LONGEST_POLL_S if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            raise NotEnded(found.document, within_s=timeout_s)
        found = yield from get(gateway, job, result_type, round(min(left_s, _LONGEST_POLL_S), 3))
    if raise_on_failure and found.state is not State.SUCCEEDED:
        raise JobFailed(found.document)
    return found


def _until_final_event(feed: Feed) -> Plan[None]:
    while (yield from feed.next()) is not None:
        pass
