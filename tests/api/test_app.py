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

from api.app import CONNECTIONS, create_app, ledger_client
from api.settings import GatewaySettings
from shared.ledger.calling.headroom import Headroom
from tests.support.servers.services import free_port, gateway_server, http_client, valkey_server, wait_for

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
    env = os.environ | {"CELERIAC_BROKER_URL": unsafe.redis_url, "CELERIAC_CONTRACTS": "tests.acme.contracts"}
    stopped = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
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
        assert http_client.get(f"{server.url}/readyz").status_code == 503


def test_a_gateway_is_ready_when_it_knows_the_room_of_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the ledger is slower than the rest of the start; else the first submissions fill what is left."""
    look = Headroom.look

    async def look_late(headroom: Headroom) -> None:
        await asyncio.sleep(2)
        await look(headroom)

    async def problem(server: Server) -> str | None:
        app = create_app(GatewaySettings(broker_url=server.redis_url, store_url=str(tmp_path / "store")))
        async with app.router.lifespan_context(app):
            found: str | None = app.state.ledger.headroom.problem
            return found

    monkeypatch.setattr(Headroom, "look", look_late)
    with valkey_server(tmp_path) as server, redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1024)
        assert "memory is used up" in (asyncio.run(problem(server)) or "")


def test_the_gateway_takes_a_bounded_number_of_connections(tmp_path: Path) -> None:
    """However many calls wait for an answer at once: the others wait for a connection, and all are answered."""
    calls = 4 * CONNECTIONS

    async def ask_at_once(server: Server) -> tuple[int, list[Any]]:
        async with ledger_client(GatewaySettings(broker_url=server.redis_url)) as client:
            asking: Any = client.blpop  # its types are those of both of redis-py's clients

            async def ask() -> Any:
                while (answer := await asking(["answers"], timeout=4)) is None:  # a socket may be silent for 5 s
                    pass
                return answer

            asked = [asyncio.create_task(ask()) for _ in range(calls)]
            with redis.Redis(port=server.port) as other:

                def all_wait() -> bool:
                    return bool(other.info("clients")["blocked_clients"] == CONNECTIONS)

                await asyncio.to_thread(wait_for, all_wait, "calls that wait on every connection")
                connected = other.info("clients")["connected_clients"] - 1  # itself
                other.rpush("answers", *range(calls))
            return connected, await asyncio.gather(*asked)

    with valkey_server(tmp_path) as server:
        connected, answers = asyncio.run(ask_at_once(server))
    assert connected == CONNECTIONS
    assert sorted(int(answer) for _, answer in answers) == list(range(calls))
