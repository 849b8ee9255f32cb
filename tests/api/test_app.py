"""Starting the gateway: what it refuses, and what it waits for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from api.app import CONNECTIONS, ledger_client
from api.settings import GatewaySettings
from tests.support.servers.services import free_port, gateway_server, http_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers.services import Server


@pytest.fixture
def unsafe(request: pytest.FixtureRequest, empty_valkey: Server) -> Iterator[Server]:
    """Change a setting of the session's Valkey for a test."""
    name, value, safe = request.param
    with redis.Redis(port=empty_valkey.port) as client:
        client.config_set(name, value)
        yield empty_valkey
        client.config_set(name, safe)


@pytest.mark.parametrize(
    ("unsafe", "hint"),
    [
        (("appendonly", "no", "yes"), "CONFIG SET appendonly yes"),
        (("maxmemory-policy", "allkeys-lru", "noeviction"), "CONFIG SET maxmemory-policy noeviction"),
    ],
    indirect=["unsafe"],
)
def test_ledger_that_would_lose_jobs_is_refused(unsafe: Server, hint: str) -> None:
    """The gateway does not start on it, and says what to do."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(free_port())]
    env = os.environ | {"CELERIAC_BROKER_URL": unsafe.redis_url}
    stopped = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert stopped.returncode != 0
    assert hint in stopped.stderr


@pytest.mark.parametrize("unsafe", [("appendonly", "no", "yes")], indirect=True)
def test_volatile_ledger_can_be_accepted_knowingly(unsafe: Server, tmp_path: Path) -> None:
    """An operator who says so gets it."""
    env = {"CELERIAC_BROKER_URL": unsafe.redis_url, "CELERIAC_ALLOW_VOLATILE_BROKER": "true"}
    with gateway_server(tmp_path, **env) as server:
        assert http_client.get(f"{server.url}/livez").status_code == 200


def test_gateway_starts_while_the_ledger_is_down(tmp_path: Path) -> None:
    """It is alive and says that it is not ready; restarting it would help nobody."""
    with gateway_server(tmp_path, CELERIAC_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0") as server:
        assert http_client.get(f"{server.url}/livez").status_code == 200
        assert http_client.get(f"{server.url}/readyz", timeout=10).status_code == 503


def test_the_gateway_takes_a_bounded_number_of_connections(empty_valkey: Server) -> None:
    """However many requests come at once: the others wait for a connection, and all are answered."""

    async def ask_at_once() -> tuple[int, list[Any], int]:
        async with ledger_client(GatewaySettings(broker_url=empty_valkey.redis_url)) as client:
            alone = len(await client.client_list())
            answers = await asyncio.gather(*(client.echo(str(n)) for n in range(4 * CONNECTIONS)))
            return alone, answers, len(await client.client_list())

    alone, answers, together = asyncio.run(ask_at_once())
    assert answers == [str(n) for n in range(4 * CONNECTIONS)]
    assert together - alone == CONNECTIONS - 1
