"""How many processes a worker has: what its command says, else what the contracts of its queues say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from worker.upkeep import lifecycle


class _Catalogue:
    """Contracts of which those of two queues say a number."""

    def processes(self) -> dict[str, int]:
        return {"sim": 3, "gpu": 1}


@pytest.mark.parametrize(
    ("options", "consumed", "expected"),
    [
        ({}, ["sim"], 3),
        ({}, ["sim", "gpu"], 4),
        ({}, ["sim", "quick"], None),  # one per processor
        ({"queues": ["gpu"]}, ["sim", "gpu", "quick"], 1),
        ({"exclude_queues": ["quick"]}, ["sim", "quick"], 3),
        ({"concurrency": 2}, ["sim"], None),  # Celery takes what the command says
        ({}, [], None),
    ],
)
def test_a_worker_has_the_processes_of_its_queues(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], consumed: list[str], expected: int | None
) -> None:
    """Celery's signal has the options of the command; those that were not given are None."""
    monkeypatch.setattr(lifecycle, "catalogue", _Catalogue)
    conf = SimpleNamespace(worker_concurrency=None)
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(consumed))))
    given = {"concurrency": None, "queues": None, "exclude_queues": None, **options}
    lifecycle.on_celeryd_init(conf=conf, options=given, instance=SimpleNamespace(app=app))
    assert conf.worker_concurrency == expected
