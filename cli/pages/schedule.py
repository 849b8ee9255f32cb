"""Print schedules for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cli.pages.output import moment, printable, show_table, state_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_PARAMS_SHOWN = 400  # characters


def show_schedules(schedules: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print schedules, one per line."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "kind", "when", "next", "last job"):
        table.add_column(name, no_wrap=True)
    for schedule in schedules:
        table.add_row(
            schedule["id"],
            Text(printable(schedule["name"])),
            schedule["kind"],
            rhythm(schedule),
            _next(schedule),
            _last(schedule),
        )
    show_table(table, out)


def show_schedule(schedule: Mapping[str, Any], out: Console) -> None:
    """Print one schedule: its times, its job, and its last runs."""
    out.print(Text.assemble((schedule["id"], "bold"), f"  {schedule['name']}  ", _next(schedule)))
    out.print(f"  {schedule['kind']}, {rhythm(schedule)}; missed: {schedule['missed']}, overlap: {schedule['overlap']}")
    params = json.dumps(schedule["params"], ensure_ascii=False)
    out.print(Text(f"  params {params if len(params) <= _PARAMS_SHOWN else params[:_PARAMS_SHOWN] + '…'}"))
    if schedule["options"]:
        out.print(Text(f"  options {json.dumps(schedule['options'], ensure_ascii=False)}"))
    for slot in schedule["next_run_times"]:
        out.print(f"  next {moment(slot)} UTC")
    if job := schedule["last_job"]:
        out.print(Text.assemble(f"  last job {job['id']}  ", _last(schedule)))
    if skipped := schedule["last_skipped"]:
        out.print(
            f"  {schedule['skipped_count']} skipped, last {moment(skipped['slot_at'])} ({skipped['why']})", style="dim"
        )
    if schedule["note"]:
        out.print(Text(f"  {schedule['note']}", style="yellow"))
    if schedule["trouble"]:
        out.print(Text(f"  {schedule['trouble']}", style="red"))


def rhythm(schedule: Mapping[str, Any]) -> str:
    """Return the times of a schedule, such as `0 9 * * * Europe/Berlin` or `every 300 s`."""
    if crontab := schedule["crontab"]:
        return " ".join([*(crontab[field] for field in _FIELDS), schedule["time_zone"]])
    return f"every {schedule['interval_s']:g} s"


def _next(schedule: Mapping[str, Any]) -> Text:
    if schedule["paused"]:
        return Text("paused", style="yellow")
    return Text(next((moment(slot) for slot in schedule["next_run_times"]), "never"))


def _last(schedule: Mapping[str, Any]) -> Text:
    if schedule["trouble"]:
        return Text("could not be made", style="red")
    job = schedule["last_job"]
    return state_text(job["state"] or "forgotten") if job else Text("")
