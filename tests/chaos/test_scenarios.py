"""`make chaos` in short: scenarios of it with few jobs and injuries, held to the same goals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.harness.rows import Row, table
from tests.chaos.scenarios import servers, workers

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(("scenario", "scale"), [(workers.run, 0.02), (servers.run, 0.08)], ids=["workers", "servers"])
def test_a_scenario_in_short(scenario: Callable[[Path, float], Row], scale: float, tmp_path: Path) -> None:
    """Each injury at least once: nothing is lost, stuck or run twice, and nobody has to help."""
    row = scenario(tmp_path / "stage", scale)
    assert row.misses == [], table({"in short": row})
