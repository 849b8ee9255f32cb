"""A gateway with connections and a small body limit, and a client that speaks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.servers.services import gateway_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers.services import Server

MAX_BODY_BYTES = 64 * 1024
CONNECTIONS = """
[warehouse]
kind = "sqlite"
path = "warehouse.db"

[shop]
kind = "sqlite"
path = "shop.db"

[lake]
kind = "store"
url = "lake"

[archive]
kind = "store"
url = "archive"
"""


@pytest.fixture(scope="package")
def api(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Run a gateway for the tests of this folder; they know their jobs by ids and tags."""
    folder = tmp_path_factory.mktemp("api")
    connections = folder / "connections.toml"
    connections.write_text(CONNECTIONS)
    env = {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "artifacts"),
        "CELERIAC_CONNECTIONS_FILE": str(connections),
        "CELERIAC_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    }
    with gateway_server(folder, **env) as server, httpx.Client(base_url=server.url, timeout=70) as client:
        yield client


@pytest.fixture
def extraction() -> dict[str, Any]:
    """Return a valid submission of a single job."""
    return {
        "kind": "etl.extract_data",
        "params": {"source": {"kind": "http", "url": "https://example.com/sales.csv"}},
    }


@pytest.fixture
def pipeline(extraction: dict[str, Any]) -> dict[str, Any]:
    """Return a valid submission of a workflow."""
    return {
        "kind": "etl.run_pipeline",
        "params": {
            **extraction["params"],
            "transform": {"steps": [{"op": "drop_missing"}]},
            "destination": {"kind": "table", "connection": "warehouse", "table": "sales", "mode": "replace"},
        },
    }
