"""A gateway that asks for keys, on a Valkey of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.api.access.keys_made import KeyMaker
from tests.support.servers.services import BOUND_S, Server, gateway_server, valkey_server, wait_for

CONNECTIONS = """
[warehouse]
kind = "sqlite"
path = "warehouse.db"

[lake]
kind = "store"
url = "lake"
"""


@pytest.fixture(scope="package")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a Valkey for this folder: once it has a key, its gateways ask for one."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="package")
def keys(own_valkey: Server) -> KeyMaker:
    """Return what makes keys in the folder's ledger."""
    return KeyMaker(own_valkey)


@pytest.fixture(scope="package")
def guarded(own_valkey: Server, keys: KeyMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Run a gateway that asks for keys; the client shows one with all scopes."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "connections.toml").write_text(CONNECTIONS)
    env = {
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "artifacts"),
        "CELERIAC_CONNECTIONS_FILE": str(folder / "connections.toml"),
    }
    with (
        gateway_server(folder, **env) as server,
        httpx.Client(base_url=server.url, timeout=BOUND_S, trust_env=False) as client,
    ):
        client.headers["Authorization"] = f"Bearer {keys.make()}"
        wait_for(lambda: httpx.get(f"{server.url}/me", trust_env=False).status_code == httpx.codes.UNAUTHORIZED, "401")
        yield client
