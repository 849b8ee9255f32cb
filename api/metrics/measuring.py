"""Measure requests with the instrumentator's metrics, at a fifth of the cost of its own middleware.

Its middleware searches all routes a second time, and creates another request and response.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from timeit import default_timer

from prometheus_fastapi_instrumentator.metrics import Info
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NO_ROUTE = "none"


class Measuring:
    """ASGI middleware that measures each request, labelled with the path of its route."""

    def __init__(
        self, app: ASGIApp, *, measures: Collection[Callable[[Info], None]], excluded: Collection[str]
    ) -> None:
        """Take metrics of the instrumentator that need neither request nor response, and the paths to leave out."""
        self._app = app
        self._measures = measures
        self._excluded = excluded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve and measure a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began_at, answered_at = 500, default_timer(), 0.0

        async def observed(message: Message) -> None:
            nonlocal status, answered_at
            if message["type"] == "http.response.start":
                status, answered_at = message["status"], default_timer()
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = scope.get("route")
            handler = _NO_ROUTE if route is None else route.path
            if handler not in self._excluded:
                info = Info(
                    request=Request(scope),
                    response=None,
                    method=scope["method"],
                    modified_handler=handler,
                    modified_status=str(int(status)),
                    modified_duration=default_timer() - began_at,
                    modified_duration_without_streaming=max(answered_at - began_at, 0.0),
                )
                for measure in self._measures:
                    measure(info)
