"""A whole service under a prefix of its own, in a database that another one may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.ledger.keys import Keys
from tests.support.keys import stray_keys
from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, Jobs, crew

pytestmark = pytest.mark.integration
KEYS = Keys("alice:")


@pytest.fixture(scope="module")
def valkey(own_valkey: Server) -> Server:
    """Return a database into which nothing else writes: these tests compare it as a whole."""
    return own_valkey


@pytest.fixture(scope="module")
def jobs(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("prefix")
    env = {
        **ACME,
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_PREFIX": KEYS.prefix,
    }
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        workers.start(queues="etl", concurrency=2, WORKER_FAMILIES="etl")
        yield Jobs(gateway)


def note(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"notebook": str(folder / "notes"), **changes}


def test_a_service_lives_under_its_prefix_alone(jobs: Jobs, valkey: Server, tmp_path: Path) -> None:
    """Jobs, a chord and a cancel go through; every key, also Celery's and kombu's, begins with the prefix."""
    assert jobs.ended(jobs.submit("acme.take_note", note(tmp_path)))["state"] == "succeeded"
    part = {"kind": "acme.take_note", "params": note(tmp_path)}
    chord = jobs.ended(jobs.submit("workflow.chord", {"header": [part, part], "body": part}))
    assert chord["state"] == "succeeded", chord["error"]
    long = jobs.submit("acme.take_note", note(tmp_path, lasts_s=60))
    wait_for(lambda: jobs.get(long)["state"] == "running", "the start")
    assert http_client.post(f"{jobs.gateway.url}/jobs/{long}/cancel").status_code == 202
    assert jobs.ended(long)["state"] == "cancelled"
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        names = list(client.scan_iter(count=1_000))
        assert [name for name in names if not name.startswith(KEYS.prefix)] == []
        assert stray_keys(client, keys=[KEYS]) == []
        channels = client.pubsub_channels()
        assert [name for name in channels if KEYS.prefix not in str(name)] == []
