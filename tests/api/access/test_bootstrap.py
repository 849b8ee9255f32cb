"""The first key: before it loopback is open, from then on a key is asked for; other addresses are never open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.api.access.keys_made import KeyMaker, bearer
from tests.support.images import ROOT
from tests.support.servers.services import (
    BOUND_S,
    Server,
    answers,
    free_port,
    gateway_server,
    running,
    valkey_server,
    wait_for,
)

UVICORN = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app"]


def env_of(valkey: Server, folder: Path) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "artifacts"),
        "CELERIAC_TASK_EVENTS": "false",
    }


def test_the_first_key_closes_every_gateway_at_once(tmp_path: Path) -> None:
    """Also one that has been running: `celeriac keys create` writes it past HTTP, and prints nothing but the key."""
    with valkey_server(tmp_path / "valkey") as valkey:
        env = env_of(valkey, tmp_path)
        with gateway_server(tmp_path / "1", **env) as one, gateway_server(tmp_path / "2", **env) as other:
            for server in (one, other):
                me = httpx.get(f"{server.url}/me", headers=bearer("whatever"), trust_env=False).json()
                assert (me["authentication"], me["tenant"], me["key_id"]) == ("none", "default", None)
            command = [sys.executable, "-m", "cli.app", "keys", "create", "--preset", "admin"]
            ran = subprocess.run(
                command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=True, timeout=120
            )
            key = ran.stdout.strip()
            for server in (one, other):

                def asks(url: str = f"{server.url}/me") -> bool:
                    return httpx.get(url, trust_env=False).status_code == httpx.codes.UNAUTHORIZED

                wait_for(asks, "the request for a key")
                me = httpx.get(f"{server.url}/me", headers=bearer(key), trust_env=False).json()
                assert me["key_id"] == key[4:12]
            KeyMaker(valkey).ledger.call("key_revoke", {"id": key[4:12]})
            assert httpx.get(f"{one.url}/me", trust_env=False).status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - it is refused
def test_another_address_is_refused_without_a_key(tmp_path: Path, host: str) -> None:
    """What is looked at is the socket: no variable says that it is loopback, or could."""
    with valkey_server(tmp_path / "valkey") as valkey:
        port = free_port()
        env = {**os.environ, **env_of(valkey, tmp_path), "CELERIAC_HOST": "127.0.0.1"}
        command = [*UVICORN, "--host", host, "--port", str(port)]
        ran = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=2 * BOUND_S
        )
        assert ran.returncode != 0
        assert "no key is asked for yet" in ran.stdout + ran.stderr
        KeyMaker(valkey).make()
        url = f"http://[::1]:{port}" if ":" in host else f"http://127.0.0.1:{port}"
        with running(command, tmp_path, port=port, ready=answers(f"{url}/livez"), env=env):
            assert httpx.get(f"{url}/me", trust_env=False).status_code == httpx.codes.UNAUTHORIZED


def test_a_proxy_may_ask_instead(tmp_path: Path) -> None:
    """Who says so gets a gateway that asks nobody, and still checks the keys that it is shown."""
    with valkey_server(tmp_path / "valkey") as valkey:
        port = free_port()
        env = {**os.environ, **env_of(valkey, tmp_path), "CELERIAC_ALLOW_UNAUTHENTICATED": "true"}
        key = KeyMaker(valkey).make("jobs:read")
        url = f"http://127.0.0.1:{port}"
        command = [*UVICORN, "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104 - it is the case
        with running(command, tmp_path, port=port, ready=answers(f"{url}/livez"), env=env):
            assert httpx.get(f"{url}/me", trust_env=False).json()["authentication"] == "none"
            assert httpx.get(f"{url}/me", headers=bearer(key), trust_env=False).json()["scopes"] == ["jobs:read"]
            assert httpx.get(f"{url}/me", headers=bearer(f"{key}x"), trust_env=False).status_code == 401


def test_a_gateway_that_knows_no_ledger_lets_nobody_in(tmp_path: Path) -> None:
    """Whether there is a key it cannot know; what everyone may see it shows."""
    broker = f"redis://127.0.0.1:{free_port()}/0"
    with gateway_server(tmp_path, CELERY_BROKER_URL=broker) as server:
        answer = httpx.get(f"{server.url}/me", trust_env=False, timeout=BOUND_S)
        assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
        assert httpx.get(f"{server.url}/job-kinds", trust_env=False).status_code == httpx.codes.OK
