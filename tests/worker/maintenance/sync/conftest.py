"""Fixtures of the synchronisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.engines import make_engine
from tests.worker.maintenance.sync.pair import Pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    """Return the pair of engines that the test names, by default two SQLite files, the quickest."""
    source, destination = getattr(request, "param", ("sqlite", "sqlite"))
    for folder in ("source", "destination"):
        (tmp_path / folder).mkdir()
    return Pair(
        make_engine(source, tmp_path / "source", request),
        make_engine(destination, tmp_path / "destination", request),
        tmp_path,
    )
