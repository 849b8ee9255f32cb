"""Fixtures for all tests."""

import os
import sys

from hypothesis import HealthCheck, settings

from tests.support.ledgers import accept, client, ledger
from tests.support.servers.postgres import postgres_server, postgres_url
from tests.support.servers.services import broker, empty_valkey, gateway, own_valkey, valkey

# The suite starts a hundred Python processes. Where this is set, each compiles FastAPI, Celery and our own code again,
# which takes three times as long as all else that a start needs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How fast a busy machine makes examples says nothing of the code.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

__all__ = [
    "accept",
    "broker",
    "client",
    "empty_valkey",
    "gateway",
    "ledger",
    "own_valkey",
    "postgres_server",
    "postgres_url",
    "valkey",
]
