"""Print pages for operators: queues, workers, dead letters, and the outcome of bulk calls."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from cli.pages.output import moment, show_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


def span(seconds: float) -> str:
    """Return a duration in its largest fitting unit, such as `42 s`, `3 min` or `2 days`."""
    for unit_s, name in ((_DAY_S, "days"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{max(0, seconds):.0f} s"


def show_queues(queues: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print queues, one per line; reasons why one is blocked are highlighted."""
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", no_wrap=True)
    for name in ("depth", "oldest", "running", "held", "limited", "consumers"):
        table.add_column(name, justify="right")
    table.add_column("")
    for queue in queues:
        oldest_s = queue["oldest_waiting_s"]
        table.add_row(
            queue["name"],
            f"{queue['depth']:,}",
            "" if oldest_s is None else span(oldest_s),
            f"{queue['running']:,}",
            f"{queue['held']:,}",
            f"{queue['concurrency_limited'] + queue['rate_limited']:,}",
            f"{queue['consumers']:,}",
            _trouble(queue),
        )
    show_table(table, out)


def _trouble(queue: Mapping[str, Any]) -> Text:
    if queue["is_paused"]:
        return Text(f"paused since {moment(queue['paused_at'])}", style="yellow")
    if queue["waiting_reason"] == "no_consumer":
        return Text("jobs wait, but no worker consumes the queue", style="bold red")
    return Text("")


def show_workers(workers: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print workers, one per line, each followed by its running jobs."""
    table = Table(box=None, pad_edge=False)
    for name in ("worker", "state", "busy", "queues", "up", "version"):
        table.add_column(name, no_wrap=True)
    for worker in workers:
        state = worker["state"]
        style = {"online": "green", "stopping": "yellow"}.get(state, "bold red")
        table.add_row(
            worker["name"],
            Text(state, style=style),
            f"{len(worker['active'])} of {worker['concurrency']}",
            Text(" ".join(worker["queues"])),
            span(_between(worker["started_at"], worker["last_seen_at"])),
            worker["versions"]["celeriac"],
        )
        for job in worker["active"]:
            ran = span(_between(job["started_at"], worker["last_seen_at"]))
            table.add_row(f"  {job['job_id']}", "", "", Text(f"{job['kind']}  {job['step'] or ''}"), ran, "")
    show_table(table, out)


def show_dead_letters(answer: Mapping[str, Any], out: Console) -> None:
    """Print dead letters, one per line, and how to go on if there are more."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "taken off", "queue", "reason"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail")
    for letter in answer["dead_letters"]:
        table.add_row(
            letter["id"],
            moment(letter["taken_off_at"]),
            Text(letter["queue"]),
            letter["reason"],
            Text(letter["detail"]),
        )
    show_table(table, out)
    if token := answer["next_page_token"]:
        typer.echo(f"There are more: --page-token {token}", err=True)


def show_dead_letter(letter: Mapping[str, Any]) -> None:
    """Print a dead letter and, below it, its message as far as it was kept."""
    typer.echo(f"{letter['id']}  {letter['queue']}  removed at {letter['taken_off_at']} by {letter['worker']}")
    typer.echo(f"{letter['reason']}: {letter['detail']}")
    typer.echo(f"{letter['size_bytes']:,} bytes" + (", only the beginning was kept" if letter["is_cut"] else ""))
    typer.echo(letter["message"])


def show_cancelled(answer: Mapping[str, Any]) -> None:
    """Print the outcome of each requested cancellation, one per line."""
    would = "would be " if answer["dry_run"] else ""
    for job_id in answer["cancelled"]:
        typer.echo(f"{job_id}  {would}cancelled")
    for job_id in answer["requested"]:
        typer.echo(f"{job_id}  runs, {would}asked to stop" if would else f"{job_id}  runs and was asked to stop")
    for job_id in answer["noted"]:
        typer.echo(f"{job_id}  not found on the broker, {would}cancelled if a worker takes its message")
    _show_refused(answer["refused"])


def show_reruns(answer: Mapping[str, Any]) -> None:
    """Print the outcome of each requested rerun, one per line, with the new job's id."""
    for job in answer["retried"]:
        typer.echo(f"{job['retried_from']}  " + ("would be rerun" if answer["dry_run"] else f"rerun as {job['id']}"))
    _show_refused(answer["refused"])


def _show_refused(refused: Iterable[Mapping[str, Any]]) -> None:
    for job in refused:
        typer.echo(f"{job['id']}  refused: {job['message']}")


def _between(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
