"""How the command line shows a kind."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.pages.kind import show_kind


def kind(**more: Any) -> dict[str, Any]:
    """Return a kind as the gateway writes it."""
    said = {"kind": "acme.serve_customer", "summary": "Serve.", "description": "", "queue": "etl", "examples": []}
    together = {"concurrency": None, "rate": None, "unique": None, "deprecated": None, "version": 1}
    limits = {"limits": {"soft_s": 50, "hard_s": 60}, "retry": {"max_retries": 3}}
    return {**said, **together, **limits, "params_schema": {}, **more}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, []),
        ({"concurrency": {"limit": 2, "by": []}}, ["at most 2 run at once"]),
        ({"rate": {"limit": "10/s", "by": ["shop", "till"]}}, ["at most 10/s start for each shop, till"]),
        ({"unique": {"by": ["shop"], "meanwhile": "skip"}}, ["at most one that has not ended for each shop"]),
        (
            {"unique": {"by": [], "meanwhile": "replace"}},
            ["at most one that has not ended, which the next one replaces"],
        ),
        ({"version": 2}, ["version 2 of its parameters"]),
        ({"deprecated": "Use acme.greet_person."}, ["deprecated: Use acme.greet_person."]),
    ],
)
def test_what_holds_for_its_jobs_together_is_said(said: dict[str, Any], expected: list[str]) -> None:
    """Between its limits and its parameters."""
    paper = io.StringIO()
    show_kind(kind(**said), Console(file=paper, soft_wrap=True, highlight=False))
    lines = [line.strip() for line in paper.getvalue().splitlines()]
    assert lines[2 : lines.index("parameters")] == expected
