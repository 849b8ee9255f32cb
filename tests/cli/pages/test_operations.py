"""Queues and workers as an operator reads them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.pages.operations import show_queues, show_workers, span

JOB_ID = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def paper() -> Console:
    """Return a console that writes into memory."""
    return Console(file=io.StringIO(), soft_wrap=True, highlight=False)


def rows(paper: Console) -> list[list[str]]:
    """Return what was written, line by line without the headings, in words."""
    assert isinstance(paper.file, io.StringIO)
    return [line.split() for line in paper.file.getvalue().splitlines()[1:]]


def queue(**more: Any) -> dict[str, Any]:
    """Return a queue as the gateway writes it."""
    figures = {
        "depth": 0,
        "oldest_waiting_s": None,
        "running": 0,
        "held": 0,
        "concurrency_limited": 0,
        "rate_limited": 0,
        "consumers": 1,
    }
    return {"name": "etl", **figures, "is_paused": False, "paused_at": None, "waiting_reason": None, **more}


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 days")]
)
def test_spans_have_the_unit_that_fits(seconds: float, expected: str) -> None:
    """Two units or more make the larger unit."""
    assert span(seconds) == expected


def test_what_keeps_a_queue_from_going_on_is_said(paper: Console) -> None:
    """A queue that goes on says nothing; a paused one since when; one without workers that jobs wait."""
    stuck = {"depth": 1_200, "oldest_waiting_s": 400.0, "consumers": 0, "waiting_reason": "no_consumer"}
    paused = {"is_paused": True, "paused_at": "2026-01-31T12:00:00.5Z", "waiting_reason": "queue_paused", "held": 3}
    show_queues([queue(), queue(**stuck), queue(**paused)], paper)
    assert [" ".join(words) for words in rows(paper)] == [
        "etl 0 0 0 0 1",
        "etl 1,200 7 min 0 0 0 0 jobs wait, but no worker consumes the queue",
        "etl 0 0 3 0 1 paused since 2026-01-31 12:00:00",
    ]


def test_a_worker_is_shown_with_what_it_runs(paper: Console) -> None:
    """Below a worker stands each of its jobs with its kind, its step and how long it has run."""
    job = {"id": "x", "job_id": JOB_ID, "kind": "ml.run_trial", "step": "round_1/trial_3"}
    worker = {
        "name": "ml@host",
        "state": "lost",
        "concurrency": 2,
        "queues": ["ml", "gpu"],
        "versions": {"celeriac": "0.1.0"},
        "started_at": "2026-01-01T00:00:00Z",
        "last_seen_at": "2026-01-01T05:00:00Z",
        "active": [{**job, "started_at": "2026-01-01T04:59:00Z"}],
    }
    show_workers([worker], paper)
    assert [" ".join(words) for words in rows(paper)] == [
        "ml@host lost 1 of 2 ml gpu 5 h 0.1.0",
        f"{JOB_ID} ml.run_trial round_1/trial_3 60 s",
    ]
