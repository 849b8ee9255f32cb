"""Fixtures for pytest.

Your conftest.py names this module:

pytest_plugins = ["celeriac.testing.fixtures"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from celeriac.testing.service import Service, running_service


@pytest.fixture(scope="session")
def celeriac_environment() -> Mapping[str, str]:
    """Return the variables of the service, such as CELERIAC_CONTRACTS. Override this fixture to set some."""
    return {}


@pytest.fixture(scope="session")
def celeriac_service(
    tmp_path_factory: pytest.TempPathFactory, celeriac_environment: Mapping[str, str]
) -> Iterator[Service]:
    """Run a real service for the whole session: broker, gateway and workers."""
    with running_service(tmp_path_factory.mktemp("celeriac") / "data", celeriac_environment) as service:
        yield service
