"""Fixtures for all tests."""

from tests.postgres import postgres_server, postgres_url
from tests.services import broker, empty_valkey, gateway, valkey

__all__ = ["broker", "empty_valkey", "gateway", "postgres_server", "postgres_url", "valkey"]
