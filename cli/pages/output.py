"""Print lists of jobs, figures, log lines and problems as text."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.ledger.states import OnlyOfSteps, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STATE_STYLES: Mapping[str, str] = {  # every state has one
    OnlyOfSteps.WAITING: "dim",
    State.SCHEDULED: "",
    State.QUEUED: "",
    State.RUNNING: "cyan",
    State.RETRYING: "yellow",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
    State.EXPIRED: "red",
    State.QUARANTINED: "red",
    OnlyOfSteps.SKIPPED: "dim",
}
_KIB = 1024
_NARROWEST, _UNBOUNDED = 110, 1_000  # columns


def console(*, stderr: bool = False) -> Console:
    """Return the console: results go to standard output, progress messages to standard error."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return untrusted text without control characters, with which a terminal's escape sequences begin."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def amount(value: float, unit: str) -> str:
    """Return a figure with its unit, such as `1,200 rows` or `3.4 MiB`."""
    if unit != "bytes":
        return f"{value:,.0f} {unit}"
    size, names = float(value), ("bytes", "KiB", "MiB", "GiB", "TiB")
    for name in names:
        if size < _KIB or name == names[-1]:
            return f"{size:,.0f} {name}" if name == "bytes" else f"{size:,.1f} {name}"
        size /= _KIB
    raise AssertionError  # unreachable: the last name always returns


def progress_text(progress: Mapping[str, Any] | None) -> str:
    """Return progress in words, such as `42 % of 71.3 MiB` or `120,000 rows`."""
    if not progress:
        return ""
    current, total, unit = progress["current"], progress["total"], progress["unit"]
    words = amount(current, unit) if not total else f"{100 * current / total:.0f} % of {amount(total, unit)}"
    return f"{words}, {progress['message']}" if progress["message"] else words


def duration_s(step: Mapping[str, Any]) -> float | None:
    """Return the run time of a job or step in seconds; None if it has not ended or never ran."""
    if not step["started_at"] or not step["finished_at"]:
        return None
    begun, ended = (datetime.fromisoformat(step[name]) for name in ("started_at", "finished_at"))
    return (ended - begun).total_seconds()


def moment(time: str) -> str:
    """Return a time of the gateway (UTC) with seconds, such as `2026-01-31 12:00:00`."""
    return time[:19].replace("T", " ")


def show_error(error: Mapping[str, Any], out: Console) -> None:
    """Print the error of a job and its remedy."""
    where = f" in step {error['step']}" if error.get("step") else ""
    out.print(Text.assemble((f"{error['code']}{where}: ", "red"), printable(error["message"])))
    if error["remedy"]:
        out.print(Text(f"  {printable(error['remedy'])}"))


def show_jobs(jobs: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print a list of jobs, one per line."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "kind", "state", "created", "steps", "tags"):
        table.add_column(name, no_wrap=True)
    for job in jobs:
        steps = f"{job['steps_done']}/{job['steps_total']}" if job["steps_total"] else ""
        table.add_row(
            job["id"],
            job["kind"],
            state_text(job["state"]),
            moment(job["created_at"]),
            steps,
            Text(" ".join(job["tags"])),
        )
    show_table(table, out)


def show_table(table: Table, out: Console) -> None:
    """Print a table completely: a narrow terminal wraps its lines, and a file gets lines of any length."""
    width = max(out.width, _NARROWEST) if out.is_terminal else _UNBOUNDED
    wide = Console(file=out.file, width=width, height=1, force_terminal=out.is_terminal, highlight=False)
    wide.print(table)


def show_problem(status: int, problem: Mapping[str, Any], out: Console) -> None:
    """Print a problem document: the error, its place, and the remedy."""
    title = problem.get("title") or f"HTTP {status}"
    out.print(Text.assemble((f"{title} ", "red"), (f"({problem.get('code', status)})", "dim")))
    errors = problem.get("errors") or []
    if problem.get("detail") and not errors:  # with errors, the detail is their summary
        out.print(Text(f"  {printable(problem['detail'])}"))
    for error in errors:
        where = f"{error['pointer']}: " if error.get("pointer") else ""
        out.print(Text.assemble("  ", (where, "bold"), printable(error.get("message", ""))))


def log_line(line: Mapping[str, Any]) -> str:
    """Return one line of a job's log as text."""
    fields = "".join(f" {name}={value}" for name, value in (line.get("fields") or {}).items())
    step = f" {line['step']}" if line.get("step") else ""
    return printable(f"{line['at']} {line['level']}{step} {line['message']}{fields}")
