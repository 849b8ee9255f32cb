"""A real service for each module, and both forms of the client."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from celeriac.client import AsyncClient, Client
from tests.support.servers.services import Server, gateway_server
from tests.support.servers.workers import ACME_ALONE, crew


@pytest.fixture(scope="module")
def service(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a gateway and a worker; yield the gateway."""
    folder = tmp_path_factory.mktemp("client")
    env = {
        **ACME_ALONE,
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_MAX_BODY_BYTES": "4000",
    }
    with gateway_server(folder, **env) as gateway, crew(folder, **env) as workers:
        workers.start(queues="etl,report", concurrency=2)
        yield gateway


class InThreads:
    """An `AsyncClient` for tests that wait: the same methods, run in an event loop of its own."""

    def __init__(self, client: AsyncClient, portal: BlockingPortal) -> None:
        self._client = client
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            made = method(*arguments, **named)
            if isinstance(made, AsyncClient):
                return InThreads(made, self._portal)
            return self._items(made) if inspect.isasyncgen(made) else self._portal.call(self._awaited, made)

        return call

    @staticmethod
    async def _awaited(made: Any) -> Any:
        return await made

    def _items(self, items: Any) -> Iterator[Any]:
        end = object()
        while (item := self._portal.call(self._next, items, end)) is not end:
            yield item

    @staticmethod
    async def _next(items: Any, end: object) -> Any:
        return await anext(items, end)


@contextmanager
def client_of(form: str, url: str, **options: Any) -> Iterator[Any]:
    """Yield a client of this form."""
    if form == "threads":
        with Client(url, **options) as client:
            yield client
        return
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(AsyncClient(url, **options)) as client:
        yield InThreads(client, portal)


@pytest.fixture(params=["threads", "tasks"])
def form(request: pytest.FixtureRequest) -> str:
    """Return each form of the client in turn."""
    return str(request.param)


@pytest.fixture
def client(form: str, service: Server) -> Iterator[Any]:
    """Return a client of the service: of both forms, one after the other. They differ in how they wait."""
    with client_of(form, service.url) as made:
        yield made


@pytest.fixture
def notebook(tmp_path: Path) -> str:
    """Return where the jobs of a test write."""
    return str(tmp_path / "notes.txt")
