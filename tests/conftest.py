"""Fixtures for all tests, and the order of their files."""

import atexit
import gc
import importlib
import logging
import os
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.installed import installed_wheel
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests wait for services: one that began last would run alone, on an idle machine."""
    waits = {item.path for item in items if any(item.iter_markers("chaos")) or any(item.iter_markers("integration"))}
    items.sort(key=lambda item: item.path not in waits)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep the collector of garbage from looking through all that is imported, which stays, now and in every test.

    Also when pytest collects, five times at its end; then the interpreter takes everything down, which libraries check.
    """
    gc.disable()
    if session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        importlib.import_module("skops.io")  # it looks through all modules that are there, 800 times: let those be few
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a file changes of all logging: a worker in this process sets it up, and later files read log lines."""
    root = logging.getLogger()
    level, handlers, disabled = root.level, list(root.handlers), root.manager.disable
    yield
    root.setLevel(level)
    root.handlers = handlers
    logging.disable(disabled)


__all__ = [
    "accept",
    "broker",
    "client",
    "empty_valkey",
    "gateway",
    "installed_wheel",
    "ledger",
    "own_valkey",
    "postgres_server",
    "postgres_url",
    "valkey",
]
