"""Fixtures of the ML tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep what a test calls directly to one thread, too: OpenMP's threads spin where cores are few."""
    with threadpool_limits(1):
        yield
