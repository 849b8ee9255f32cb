"""Does what plans ask for, with httpx and tasks that wait; `caller.py` is made of this module, and waits in threads."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import anyio
import httpx

from celeriac.client.gateway import Gateway, Retries
from celeriac.client.wire import Answer, Give, Pause, Plan, Read, Request, Work

T = TypeVar("T")
_RETRIES = Retries()


class AsyncLine:
    """The requests of one plan, of which at most one has an answer that is still read."""

    def __init__(self, http: httpx.AsyncClient, gateway: Gateway) -> None:
        self._http = http
        self._gateway = gateway
        self._response: httpx.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None

    async def do(self, step: Any) -> Any:
        """Return what became of a step. Raises `httpx.TransportError`."""
        match step:
            case Request():
                return await self._send(step)
            case Read():
                return None if self._parts is None else await anext(self._parts, None)
            case Pause():
                return await anyio.sleep(step.seconds)
            case Work():
                return await anyio.to_thread.run_sync(step.call)
            case _:
                raise TypeError(f"a plan cannot ask for {step!r}")

    async def aclose(self) -> None:
        """Leave the answer that is still read."""
        if self._response is not None:
            await self._response.aclose()
        self._response = self._parts = None

    async def _send(self, request: Request) -> Answer:
        await self.aclose()
        content = self._content(request.content()) if callable(request.content) else request.content
        built = self._http.build_request(**self._gateway.arguments(request), content=content)
        self._response = response = await self._http.send(built, stream=True)
        if request.is_streamed and not response.is_error:
            self._parts = response.aiter_bytes(request.part_bytes)
            return Answer(response.status_code, response.headers, b"")
        whole = await response.aread()
        await self.aclose()
        return Answer(response.status_code, response.headers, whole)

    async def _content(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (part := await anyio.to_thread.run_sync(next, parts, None)) is not None:
            yield part


class AsyncCaller:
    """Runs plans against one gateway."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retries: Retries = _RETRIES,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Call the gateway at `url`: by default `CELERIAC_URL`, else http://127.0.0.1:8000.

        `api_key` is sent as a bearer token: by default `CELERIAC_API_KEY`, else none. `http` is an httpx client of your
        own, with certificates or proxies; it stays open when this client is closed.
        """
        self.gateway = Gateway.at(url, api_key, retries)
        self._owns_http = http is None
        self._http = httpx.AsyncClient(**self.gateway.http_options) if http is None else http

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

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, plan: Plan[T]) -> T:
        """Return what a plan returns."""
        async with aclosing(self._items(plan)) as items:
            return cast("T", await anext(items, None))

    async def _items(self, plan: Plan[Any]) -> AsyncGenerator[Any, None]:
        """Yield what a plan gives, or else what it returns."""
        line = AsyncLine(self._http, self.gateway)
        try:
            step = next(plan)
            while True:
                if isinstance(step, Give):
                    yield step.item
                    step = next(plan)
                    continue
                try:
                    answer = await line.do(step)
                except httpx.TransportError as lost:
                    step = plan.throw(lost)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            if end.value is not None:
                yield end.value
        finally:
            plan.close()
            await line.aclose()
