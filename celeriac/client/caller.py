"""Made by `make client` from acaller.py: change that, and make it again."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx

from celeriac.client.gateway import Gateway, Retries
from celeriac.client.wire import Answer, Give, Pause, Plan, Read, Request, Work

T = TypeVar("T")
_RETRIES = Retries()


class Line:
    """The requests of one plan, of which at most one has an answer that is still read."""

    def __init__(self, http: httpx.Client, gateway: Gateway) -> None:
        self._http = http
        self._gateway = gateway
        self._response: httpx.Response | None = None
        self._parts: Iterator[bytes] | None = None

    def do(self, step: Any) -> Any:
        """Return what became of a step. Raises `httpx.TransportError`."""
        match step:
            case Request():
                return self._send(step)
            case Read():
                return None if self._parts is None else next(self._parts, None)
            case Pause():
                return time.sleep(step.seconds)
            case Work():
                return step.call()
            case _:
                raise TypeError(f"a plan cannot ask for {step!r}")

    def close(self) -> None:
        """Leave the answer that is still read."""
        if self._response is not None:
            self._response.close()
        self._response = self._parts = None

    def _send(self, request: Request) -> Answer:
        self.close()
        content = self._content(request.content()) if callable(request.content) else request.content
        built = self._http.build_request(**self._gateway.arguments(request), content=content)
        self._response = response = self._http.send(built, stream=True)
        if request.is_streamed and not response.is_error:
            self._parts = response.iter_bytes(request.part_bytes)
            return Answer(response.status_code, response.headers, b"")
        whole = response.read()
        self.close()
        return Answer(response.status_code, response.headers, whole)

    def _content(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        while (part := next(parts, None)) is not None:
            yield part


class Caller:
    """Runs plans against one gateway."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retries: Retries = _RETRIES,
        http: httpx.Client | None = None,
    ) -> None:
        """Call the gateway at `url`: by default `CELERIAC_URL`, else http://127.0.0.1:8000.

        `api_key` is sent as a bearer token: by default `CELERIAC_API_KEY`, else none. `http` is an httpx client of your
        own, with certificates or proxies; it stays open when this client is closed.
        """
        self.gateway = Gateway.at(url, api_key, retries)
        self._owns_http = http is None
        self._http = httpx.Client(**self.gateway.http_options) if http is None else http

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return self.gateway.url

    def with_retries(self, retries: Retries) -> Self:
        """Return a client with the same connections and other retries."""
        other = copy.copy(self)
        other.gateway = replace(self.gateway, retries=retries)
        other._owns_http = False  # noqa: SLF001 - it is one of us
        return other

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, plan: Plan[T]) -> T:
        """Return what a plan returns."""
        with closing(self._items(plan)) as items:
            return cast("T", next(items, None))

    def _items(self, plan: Plan[Any]) -> Generator[Any, None, None]:
        """Yield what a plan gives, or else what it returns."""
        line = Line(self._http, self.gateway)
        try:
            step = next(plan)
            while True:
                if isinstance(step, Give):
                    yield step.item
                    step = next(plan)
                    continue
                try:
                    answer = line.do(step)
                except httpx.TransportError as lost:
                    step = plan.throw(lost)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            if end.value is not None:
                yield end.value
        finally:
            plan.close()
            line.close()
