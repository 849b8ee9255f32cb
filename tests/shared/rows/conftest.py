"""An empty result database of each kind, and what the ledger notes for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.rows.database import open_database
from shared.rows.noted import NotedRows
from tests.shared.rows.mariadb import mariadb_server, mariadb_url

__all__ = ["mariadb_server", "mariadb_url"]


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, as the settings make it of CELERY_RESULT_BACKEND."""
    match request.param:
        case "sqlite":
            url = f"sqlite:///{tmp_path / 'results.db'}"
        case "postgresql":
            url = request.getfixturevalue("postgres_url")
        case _:
            url = request.getfixturevalue("mariadb_url")
    return BrokerSettings(result_backend=f"db+{url}").database_url


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = open_database(database_url, connections=4)
    yield made
    made.dispose()


@pytest.fixture
def noted(ledger: Ledger) -> NotedRows:
    made = NotedRows(ledger, owner="w1")
    assert made.take() is not None
    return made
