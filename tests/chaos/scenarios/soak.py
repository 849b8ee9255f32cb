"""Many jobs, and nothing is hurt."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import scaled, stage


def run(folder: Path, scale: float = 1) -> Row:
    """20,000 jobs."""
    with stage(folder, workers=2) as service:
        service.clients.submit_all((service.job() for _ in range(scaled(20_000, scale))), batch=500)
        return settle(service, "nothing", bound_s=1_800)  # where much else runs, 30 jobs a second
