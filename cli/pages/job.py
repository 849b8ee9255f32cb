"""Print a job for people: state, waiting reason, steps as a tree, result, error."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cli.pages.output import amount, duration_s, printable, progress_text, show_error, show_table, state_text
from shared.ledger.states import OnlyOfSteps, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

_SHOWN = 20  # parts shown of one branch; of a larger branch, the most informative ones
_ERROR_SHOWN = 120  # characters of a step's error; the job's own is shown whole
# The least informative states of many parts.
_QUIET: Mapping[str, int] = {State.SUCCEEDED: 2, OnlyOfSteps.WAITING: 3, OnlyOfSteps.SKIPPED: 3}


def show_job(job: Mapping[str, Any], out: Console) -> None:
    """Print a job: its state, times, steps, result or error, and files."""
    out.print(Text.assemble((job["id"], "bold"), f"  {job['kind']}  ", state_text(job["state"])))
    ran = duration_s(job)
    times = [f"created {job['created_at']}"]
    times += [f"ran {ran:.1f} s"] if ran is not None else []
    times += [f"attempt {job['attempt']}"] if job["attempt"] > 1 else []
    times += [f"submitted by {job['parent']}"] if job["parent"] else []
    times += [f"reruns {job['retried_from']}"] if job["retried_from"] else []
    times += [f"replaced by {job['replaced_by']}"] if job["replaced_by"] else []
    times += [f"rerun as {job['retried_as']}"] if job["retried_as"] else []
    out.print("  " + ", ".join(times), style="dim")
    if reason := waiting_text(job):
        out.print(Text(f"  {reason}", style="yellow"))
    if job["progress"] and not job["finished_at"]:
        out.print(f"  {progress_text(job['progress'])}")
    if job["steps"]:
        show_table(steps_tree(job["steps"]), out)
    if job["result"] is not None:
        out.print("result")
        out.print(Text(_indented(job["result"])))
    if job["error"]:
        show_error(job["error"], out)
    for artifact in job["artifacts"]:
        size = amount(artifact["size_bytes"], "bytes")
        out.print(Text(printable(f"file  {artifact['name']}  {artifact['role']}, {size}, {artifact['uri']}")))


def show_files(files: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print the files of a job and of its steps, one per line."""
    table = Table(box=None, pad_edge=False)
    for name in ("name", "role", "media type", "size", "step"):
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    for file in files:
        artifact = file["artifact"]
        words = [artifact["name"], artifact["role"], artifact["media_type"]]
        words += [amount(artifact["size_bytes"], "bytes"), file["step"] or ""]
        table.add_row(*(Text(printable(word)) for word in words))
    show_table(table, out)


def waiting_text(part: Mapping[str, Any]) -> str:
    """Return why a job or a step is waiting; empty if it is not."""
    reason, queue, position = part["waiting_reason"], part["queue"], part["queue_position"]
    if reason == "behind":
        return f"{position:,} before it in queue {queue}" if position else f"next in queue {queue}"
    if reason == "scheduled":
        return f"due {part['due_at']}" if part.get("due_at") else "not due yet"
    return {
        None: "",
        "no_consumer": f"no worker takes jobs from queue {queue}",
        "no_worker_for_kind": f"no worker of queue {queue} runs this kind, or this version of it",
        "queue_paused": f"queue {queue} is paused",
        "concurrency_limited": "the concurrency limit of its key is reached",
        "rate_limited": "its kind starts no more often",
    }.get(reason, str(reason))


def steps_tree(steps: Sequence[Mapping[str, Any]]) -> Table:
    """Return the steps as a tree of their path names (`group/line/copy_note`), with large branches shortened."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    for row in _branch([(step["name"].split("/"), step) for step in steps], depth=1):
        table.add_row(*row)
    return table


_Row = tuple[str, Text, str, Text]
_Named = tuple[list[str], "Mapping[str, Any]"]


def _branch(named: Iterable[_Named], *, depth: int) -> Iterator[_Row]:
    """Yield the rows of the steps below one branch, each with the rest of its path."""
    children: dict[str, list[_Named]] = {}
    for (first, *rest), step in named:
        children.setdefault(first, []).append((rest, step))
    shown, hidden = _notable(children)
    for name in shown:
        yield from (_leaf("  " * depth + name, step) for rest, step in children[name] if not rest)
        if below := [(rest, step) for rest, step in children[name] if rest]:
            yield ("  " * depth + name, Text(""), "", Text(_counted(below), style="dim"))
            yield from _branch(below, depth=depth + 1)
    if hidden:
        left = [item for name in hidden for item in children[name]]
        yield ("  " * depth + f"{len(hidden):,} more", Text(""), "", Text(_counted(left), style="dim"))


def _notable(children: Mapping[str, Sequence[_Named]]) -> tuple[list[str], list[str]]:
    """Return the names to show and those to count: failed and running steps before succeeded and waiting ones."""
    if len(children) <= _SHOWN:
        return list(children), []
    ranked = sorted(children, key=lambda name: min(_QUIET.get(step["state"], 1) for _, step in children[name]))
    chosen = set(ranked[:_SHOWN])
    return [name for name in children if name in chosen], [name for name in children if name not in chosen]


def _counted(named: Iterable[_Named]) -> str:
    return counts(step for _, step in named)


def counts(steps: Iterable[Mapping[str, Any]]) -> str:
    """Return the number of steps per state, such as `3 succeeded, 1 failed`."""
    return ", ".join(f"{count:,} {state}" for state, count in Counter(step["state"] for step in steps).most_common())


def _leaf(name: str, step: Mapping[str, Any]) -> _Row:
    ran = duration_s(step)
    return name, state_text(step["state"]), f"{ran:.1f} s" if ran is not None else "", Text(_said(step))


def _said(step: Mapping[str, Any]) -> str:
    """Return the note on a step: its failure, its origin, its waiting reason, or its progress."""
    if error := step["error"]:
        text = f"{error['code']}: {error['message']}"
        return text if len(text) <= _ERROR_SHOWN else f"{text[:_ERROR_SHOWN]}…"
    if step["reused_from"]:
        return "reused from the earlier job"
    return waiting_text(step) or ("" if step["finished_at"] else progress_text(step["progress"]))


def _indented(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "\n".join(f"  {line}" for line in text.splitlines())
