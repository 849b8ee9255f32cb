"""Pauses and log lines while the broker breaks its connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from worker.upkeep.outage import PAUSE_MAX_S, Outage

CELERYS = logging.getLogger("celery.worker.consumer.consumer")


@pytest.fixture
def outage() -> Iterator[Outage]:
    made = Outage()
    made.quiet()
    yield made
    for name in ("consumer", "connection", "mingle"):
        logging.getLogger(f"celery.worker.consumer.{name}").removeFilter(made)


def test_the_pauses_grow_to_a_bound_and_end_with_the_outage(outage: Outage) -> None:
    """The first loss costs none: a restart of the broker is the usual one."""
    pauses = [outage.pause_s]
    for _ in range(7):
        outage.lost()
        pauses.append(outage.pause_s)
    assert pauses == [0, 0, 0.5, 1, 2, 4, PAUSE_MAX_S, PAUSE_MAX_S]
    outage.over(6)  # of a connection that broke before it had held
    assert outage.pause_s == PAUSE_MAX_S
    outage.over(7)
    assert outage.pause_s == 0


def test_each_line_is_logged_once_an_outage(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    """Another failure is another line; the end is told once, and before and after everything is logged."""
    CELERYS.warning("%s (%r)", "lost", OSError("before"))
    for number in range(3):
        outage.lost()
        CELERYS.warning("%s (%r)", "lost", OSError(number))
        outage.missed("redis://host", ConnectionRefusedError(number))
    CELERYS.warning("%s (%r)", "lost", ValueError("another"))
    outage.over(6)
    outage.over(0)
    CELERYS.warning("%s (%r)", "lost", OSError("after"))
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition(" in ")[0] for line in lines] == [
        "lost (OSError('before'))",
        "lost (OSError(0))",
        "no connection to the broker redis://host: ConnectionRefusedError(0); trying until there is one",
        "lost (ValueError('another'))",
        "the connection to the broker works again, after 6 losses",
        "lost (OSError('after'))",
    ]
