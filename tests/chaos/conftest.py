"""A service whose broker tests may stop, kill and start again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers.outages import RestartableValkey, restartable_valkey
from tests.support.servers.services import gateway_server
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, crew


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[RestartableValkey, Jobs, Crew]]:
    with restartable_valkey(tmp_path / "valkey") as valkey:
        env = {**ACME_ALONE, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
        with gateway_server(tmp_path, **env) as gateway, crew(tmp_path, **env) as workers:
            yield valkey, Jobs(gateway), workers
