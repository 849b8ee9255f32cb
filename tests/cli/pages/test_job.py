"""A job for people: its steps as a tree, and why it waits."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.client.watch import live_view
from cli.pages.job import steps_tree, waiting_text


def step(name: str, state: str = "succeeded", **more: Any) -> dict[str, Any]:
    """Return a step as the gateway writes it."""
    nothing = dict.fromkeys(
        ["progress", "error", "reused_from", "waiting_reason", "queue_position", "started_at", "finished_at"]
    )
    return {"name": name, "state": state, "queue": "etl", **nothing, **more}


def drawn(*steps: dict[str, Any]) -> list[str]:
    """Return the lines of the tree of `steps`, without what fills them up."""
    paper = Console(file=io.StringIO(), width=200)
    paper.print(steps_tree(steps))
    assert isinstance(paper.file, io.StringIO)
    return [line.rstrip() for line in paper.file.getvalue().splitlines()]


def words(line: str) -> str:
    """Return a line with single blanks, its indentation kept."""
    return line[: len(line) - len(line.lstrip())] + " ".join(line.split())


def test_names_make_a_tree() -> None:
    """What names have in common is a branch with the states below it; a step says its one most telling thing."""
    failure = {"code": "no_such_table", "message": "There is no table 'sales'."}
    progress = {"current": 1, "total": 4, "unit": "rows", "message": ""}
    lines = drawn(
        step("load"),
        step("group/line/take_note", started_at="2026-01-01T00:00:00Z", finished_at="2026-01-01T00:00:02.5Z"),
        step("group/line/copy_note", "failed", error=failure),
        step("group/other", "running", progress=progress),
        step("body", "skipped"),
        step("kept", reused_from="01900000-0000-7000-8000-000000000000"),
    )
    assert [words(line) for line in lines] == [
        "  load succeeded",
        "  group 1 succeeded, 1 failed, 1 running",
        "    line 1 succeeded, 1 failed",
        "      take_note succeeded 2.5 s",
        "      copy_note failed no_such_table: There is no table 'sales'.",
        "    other running 25 % of 4 rows",
        "  body skipped",
        "  kept succeeded reused from the earlier job",
    ]


def test_of_many_steps_the_telling_ones_are_shown() -> None:
    """Of 1,000 parts those that failed or run are shown, the rest are counted."""
    states = [
        "failed" if number in {17, 900} else "running" if number == 500 else "succeeded" for number in range(1_000)
    ]
    lines = drawn(*(step(f"map/{number}", state) for number, state in enumerate(states)))
    shown = {line.split()[0]: line.split()[1] for line in lines[1:-1]}
    assert {name: state for name, state in shown.items() if state != "succeeded"} == {
        "17": "failed",
        "500": "running",
        "900": "failed",
    }
    assert (len(shown), words(lines[-1])) == (20, "    980 more 980 succeeded")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"waiting_reason": None}, ""),
        ({"waiting_reason": "behind", "queue_position": 1_200}, "1,200 before it in queue etl"),
        ({"waiting_reason": "behind", "queue_position": 0}, "next in queue etl"),
        ({"waiting_reason": "scheduled", "due_at": "2026-01-01T00:00:00Z"}, "due 2026-01-01T00:00:00Z"),
        ({"waiting_reason": "concurrency_limited"}, "the concurrency limit of its key is reached"),
        ({"waiting_reason": "rate_limited"}, "its kind starts no more often"),
        ({"waiting_reason": "a reason of a newer gateway"}, "a reason of a newer gateway"),
    ],
)
def test_why_a_job_waits_in_words(part: dict[str, Any], expected: str) -> None:
    """Every reason becomes a sentence that names the queue."""
    assert waiting_text({**step("a", "queued"), **part}) == expected


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_live_view_of_many_steps_is_bounded(is_terminal: bool) -> None:  # noqa: FBT001 - pytest's parameter
    """However many steps there are, the view is a few lines that count them by state."""
    paper = io.StringIO()
    job = {
        **step("", "running", waiting_reason="no_consumer"),
        "kind": "workflow.group",
        "steps": [step(f"{number}", "succeeded" if number < 990 else "running") for number in range(1_000)],
    }
    with live_view(Console(file=paper, force_terminal=is_terminal, width=120, height=30)) as view:
        view.show(job)
    assert "99 % of 1,000 steps, 990 succeeded, 10 running" in paper.getvalue()
    assert paper.getvalue().count("\n") == 1
