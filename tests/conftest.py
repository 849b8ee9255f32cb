"""Fixtures for all tests."""

from tests.ledgers import accept, client, ledger
from tests.postgres import postgres_server, postgres_url
from tests.services import broker, empty_valkey, gateway, valkey

__all__ = [
    "accept",
    "broker",
    "client",
    "empty_valkey",
    "gateway",
    "ledger",
    "postgres_server",
    "postgres_url",
    "valkey",
]
