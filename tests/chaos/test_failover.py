"""The primary becomes a replica, and its replica the primary, under one address, as in a failover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.chaos.harness.proxy import Proxy, proxy_to
from tests.support.servers.services import Server, gateway_server, http_client, valkey_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, crew

pytestmark = pytest.mark.chaos


class Pair:
    """A primary and its replica behind one address."""

    def __init__(self, primary: Server, replica: Server, address: Proxy) -> None:
        self.primary, self.replica = redis.Redis(port=primary.port), redis.Redis(port=replica.port)
        self.ports, self.address = (primary.port, replica.port), address
        self.replica.replicaof("127.0.0.1", str(primary.port))
        wait_for(lambda: self.replica.info("replication")["master_link_status"] == "up", "the first copy")

    def fail_over(self) -> None:
        """Make the replica the primary; who is connected stays connected to what is a replica now."""
        wait_for(self._is_equal, "the last write on the replica")
        self.address.lead_to(self.ports[1])
        self.primary.replicaof("127.0.0.1", str(self.ports[1]))
        self.replica.replicaof("NO", "ONE")

    def _is_equal(self) -> bool:
        told = self.primary.info("replication")
        return int(told["slave0"]["offset"]) == int(told["master_repl_offset"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with (
        valkey_server(tmp_path / "one") as primary,
        valkey_server(tmp_path / "two") as replica,
        proxy_to(primary.port) as address,
    ):
        yield Pair(primary, replica, address)


@pytest.fixture
def service(pair: Pair, tmp_path: Path) -> Iterator[tuple[Jobs, Crew]]:
    env = {
        **ACME_ALONE,
        "CELERY_BROKER_URL": f"redis://127.0.0.1:{pair.address.port}/0",
        "CELERIAC_STORE_URL": str(tmp_path / "store"),
        "CELERIAC_LEASE_S": "3",
    }
    with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env) as workers:
        yield Jobs(gateway), workers


def test_the_service_follows_the_primary(pair: Pair, service: tuple[Jobs, Crew], tmp_path: Path) -> None:
    """A job that outlasts its lease ends in its first attempt; jobs are accepted and run again, delayed ones too."""
    jobs, workers = service
    worker = workers.start(concurrency=2, talks=True)
    notebook = tmp_path / "notes.txt"
    note: dict[str, Any] = {"kind": "acme.take_note", "params": {"notebook": str(notebook)}}
    assert jobs.ended(jobs.submit(**note))["state"] == "succeeded"
    running = jobs.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 8})
    jobs.in_state(running, "running")
    pair.fail_over()

    def accepted() -> str | None:
        answer = http_client.post(f"{jobs.gateway.url}/jobs", json=note)
        assert answer.status_code in {202, 503}, answer.text
        return answer.json()["id"] if answer.status_code == 202 else None

    wait_for(accepted, "a job that the new primary takes")
    job = jobs.ended(running)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    for _ in range(8):  # over every connection of the gateway's
        assert jobs.ended(jobs.submit(**note))["state"] == "succeeded"
    assert jobs.ended(jobs.submit(**note, delay_s=1))["state"] == "succeeded"  # the keeper's
    assert worker.process.poll() is None
