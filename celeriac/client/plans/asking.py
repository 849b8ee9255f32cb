"""Send a request until it is answered: what is repeated, for how long, and what a refusal becomes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import httpx
from pydantic_core import to_jsonable_python

from celeriac.client.failures import ClientFailure, Refused, Unreachable
from celeriac.client.gateway import Gateway
from celeriac.client.wire import Answer, Give, Items, Pause, Plan, Request, sent

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _SHORTEST_PAUSE_S = 0.2, 5.0, 0.05
_TRANSIENT = {429, 502, 503, 504}
_NOTHING_CHANGED = {429, 503}  # except for the code below
_OUTCOME_UNKNOWN = "outcome_unknown"
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NEVER_SENT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)  # the URL or a header is wrong
_ERRORS = 400
_PAGE_SIZE = 200
_CHANCE = random.SystemRandom()


class Pauses:
    """The pauses before repetitions: they double, with full jitter, up to a given time after the first failure."""

    def __init__(self) -> None:
        self._failed_at: float | None = None
        self._count = 0

    def after(self, failure: ClientFailure, bound_s: float, wished_s: float | None = None) -> Plan[None]:
        """Pause, for `wished_s` if the gateway names a time. Raises `failure` if `bound_s` would be over then."""
        now = time.monotonic()
        self._failed_at = now if self._failed_at is None else self._failed_at
        longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._count)
        pause_s = max(_SHORTEST_PAUSE_S, _CHANCE.uniform(0, longest_s)) if wished_s is None else wished_s
        self._count += 1
        if now + pause_s > self._failed_at + bound_s:
            raise failure
        yield Pause(pause_s)


def asked(gateway: Gateway, request: Request) -> Plan[Answer]:
    """Send a request, again if that is safe and may help, and return its answer. Raises `Unreachable`, `Refused`."""
    pauses, times = Pauses(), 0
    while True:
        times += 1
        bound_s, wished_s = gateway.retries.for_s, None
        failure: ClientFailure
        try:
            answer = replace((yield from sent(request)), sent=times)
        except _NEVER_SENT as wrong:
            raise unreachable(gateway, wrong) from wrong
        except httpx.TransportError as lost:
            failure = unreachable(gateway, lost)
            if isinstance(lost, _NOT_SENT):
                bound_s = gateway.retries.connect_for_s
            elif not request.is_repeatable:
                raise failure from lost
        else:
            if answer.status < _ERRORS:
                return answer
            failure = refusal(gateway, answer)
            if not _is_transient(answer.status, failure, is_repeatable=request.is_repeatable):
                raise failure
            wished_s = retry_after_s(answer.headers)
        yield from pauses.after(failure, bound_s, wished_s)


def asked_document(gateway: Gateway, request: Request) -> Plan[Answer]:
    """Do the same for an answer that is JSON or empty. Raises `Unreachable` if it is something else."""
    answer = yield from asked(gateway, request)
    try:
        _ = answer.document
    except ValueError:
        raise _not_a_gateway(gateway, answer) from None
    return answer


def paged(
    gateway: Gateway, path: str, query: Mapping[str, Any], item_of: Callable[[Mapping[str, Any]], object]
) -> Items:
    """Give each item of a list, page by page; its name in a page is that of the path."""
    query = {"page_size": _PAGE_SIZE, **query}
    while True:
        page = (yield from asked_document(gateway, read(path, query=query))).document
        for document in page[path.removeprefix("/")]:
            yield Give(item_of(document))
        if (token := page["next_page_token"]) is None:
            return
        query = {**query, "page_token": token}


def posted(path: str, body: Any = None, *, key: str | None = None, repeatable: bool = False, **more: Any) -> Request:
    """Return the request that POSTs a JSON body, none for None. With an Idempotency-Key it may be repeated."""
    headers = {"Idempotency-Key": key} if key else {}
    request = Request("POST", path, headers=headers, is_repeatable=repeatable or key is not None, **more)
    return request if body is None else with_body(request, body)


def with_body(request: Request, body: Any) -> Request:
    """Return the request with a JSON body."""
    text = json.dumps(body, allow_nan=False, default=to_jsonable_python)
    return replace(request, headers={**request.headers, "Content-Type": "application/json"}, content=text.encode())


def read(path: str, **more: Any) -> Request:
    """Return the request that GETs a path."""
    return Request("GET", path, is_repeatable=True, **more)


def new_key() -> str:
    """Return an Idempotency-Key that nobody else has."""
    return uuid4().hex


def unreachable(gateway: Gateway, failure: httpx.TransportError) -> Unreachable:
    """Return what a failure of the transport, its cause, is for the caller."""
    why = str(failure) or type(failure).__name__
    away = Unreachable(f"The gateway at {gateway.shown} does not respond: {why}.")
    away.__cause__ = failure
    return away


def refusal(gateway: Gateway, answer: Answer) -> ClientFailure:
    """Return what an answer of 400 or more is for the caller."""
    try:
        problem = answer.document
    except ValueError:
        return _not_a_gateway(gateway, answer)
    problem = problem if isinstance(problem, dict) else {}
    wished_s = retry_after_s(answer.headers)
    return Refused(answer.status, problem, answer.text, retry_after_s=wished_s, sent=answer.sent)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After` header, which may also be a date; None without one that can be read."""
    text = headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None


def _is_transient(status: int, failure: ClientFailure, *, is_repeatable: bool) -> bool:
    if status not in _TRANSIENT:
        return False
    is_unknown = isinstance(failure, Refused) and failure.code == _OUTCOME_UNKNOWN
    return is_repeatable or (status in _NOTHING_CHANGED and not is_unknown)


def _not_a_gateway(gateway: Gateway, answer: Answer) -> Unreachable:
    return Unreachable(f"{gateway.shown} is not a Celeriac gateway (HTTP {answer.status} without JSON).")
