"""Commands for schedules. A schedule is named by its id, or by its name if that is unique."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import BaseModel, Field

from celeriac.client import DEFAULT_URL, Client, Schedule
from celeriac.client.plans.schedules import crontab_of
from cli.client.calls import announce, gateway_at
from cli.commands.fields import OptionsOf, with_options
from cli.commands.operations import ListedUnlessNamed
from cli.commands.options import Assignments, Json, Params, ScheduleOptions, Url, Wait, typed_params
from cli.pages import output
from cli.pages import schedule as page

schedules = typer.Typer(name="schedules", cls=ListedUnlessNamed, help="List, create, edit, pause and run schedules.")

Which = Annotated[str, typer.Argument(help="Id or unique name of the schedule.", metavar="SCHEDULE")]


class _Rhythm(BaseModel):
    """When a schedule runs, as typed on the command line; the gateway checks it."""

    cron: str | None = Field(
        default=None, description='Times in five fields: minute, hour, day, month, weekday, as in "0 9 * * mon-fri".'
    )
    every_s: float | None = Field(default=None, description="Seconds between two jobs, instead of --cron.")
    time_zone: str | None = Field(default=None, description="Time zone of --cron, such as Europe/Berlin. Default: UTC.")
    missed: str | None = Field(
        default=None, description="What to do about missed times: skip or run_once. Default: skip."
    )
    overlap: str | None = Field(
        default=None,
        description="What to do while its last job has not ended: skip, allow or buffer_one. Default: skip.",
    )


Rhythm = Annotated[dict[str, Any], OptionsOf(_Rhythm)]
_TERMS = ("name", "kind", "params", "options", "crontab", "interval_s", "time_zone", "missed", "overlap")


@schedules.command("list")
def list_schedules(*, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List the schedules by name."""
    with gateway_at(url, as_json=as_json) as gateway:
        found = sorted((schedule.document for schedule in gateway.schedules()), key=itemgetter("name"))
    if as_json:
        typer.echo(json.dumps({"schedules": found}))
    else:
        page.show_schedules(found, output.console())


@schedules.command("get")
def get_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show a schedule with its next times and its last job."""
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.get_schedule(_id(gateway, which)), as_json=as_json)


@schedules.command("create")
@with_options
def create_schedule(
    kind: Annotated[str, typer.Argument(help="The kind of its jobs; see `celeriac kinds`.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the schedule.")],
    rhythm: Rhythm,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    params: Params = None,
    assignments: Assignments = None,
    options: ScheduleOptions,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Create a schedule. Its job's parameters and options are those of `celeriac submit`."""
    if ("cron" in rhythm) == ("every_s" in rhythm):
        raise typer.BadParameter("Set its times with either --cron or --every-s.")
    given = typed_params(params, assignments)
    terms = {**_terms(**rhythm), **({"options": options} if options else {}), **({"paused": True} if paused else {})}
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.create_schedule(kind, given, name=name, **terms), as_json=as_json)


@schedules.command("update")
@with_options
def update_schedule(
    which: Which,
    *,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    rhythm: Rhythm,
    params: Params = None,
    assignments: Assignments = None,
    options: ScheduleOptions,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Change what is given and keep the rest. --set changes single parameters."""
    if "cron" in rhythm and "every_s" in rhythm:
        raise typer.BadParameter("Set its times with either --cron or --every-s.")
    with gateway_at(url, as_json=as_json) as gateway:
        before = gateway.get_schedule(_id(gateway, which))
        after = {
            **{term: before.document[term] for term in _TERMS},
            **_terms(**rhythm),
            **({"name": name} if name else {}),
            "params": typed_params(params, assignments, of=before.document["params"]),
            "options": before.document["options"] | options,
        }
        _show(gateway.replace_schedule(before, after.pop("kind"), after.pop("params"), **after), as_json=as_json)


@schedules.command("delete")
def delete_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Delete a schedule but not its jobs."""
    with gateway_at(url, as_json=as_json) as gateway:
        gateway.delete_schedule(_id(gateway, which))
        if not as_json:
            typer.echo("deleted")


@schedules.command("pause")
def pause_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Pause a schedule: it submits no jobs until it is resumed."""
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.pause_schedule(_id(gateway, which)), as_json=as_json)


@schedules.command("resume")
def resume_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Resume a schedule from its next time."""
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.resume_schedule(_id(gateway, which)), as_json=as_json)


@schedules.command("run")
def run_schedule(which: Which, *, wait: Wait = False, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Submit a job of a schedule now, even if it is paused."""
    with gateway_at(url, as_json=as_json) as gateway:
        announce(gateway, gateway.run_schedule(_id(gateway, which)), wait=wait, as_json=as_json)


def _id(gateway: Client, which: str) -> str:
    """Return the id of the schedule with this id or name. Raises `typer.BadParameter`."""
    try:
        return str(UUID(which))
    except ValueError:
        named = [schedule.id for schedule in gateway.schedules() if schedule.name == which]
    if len(named) != 1:
        many = f"{len(named)} schedules are" if named else "No schedule is"
        raise typer.BadParameter(f"{many} called {which!r}; use an id from `celeriac schedules`.")
    return named[0]


def _terms(*, cron: str | None = None, every_s: float | None = None, **same: Any) -> dict[str, Any]:
    """Return these fields as the gateway expects them. Raises `typer.BadParameter`."""
    if every_s is not None:
        return same | {"crontab": None, "interval_s": every_s}
    if cron is None:
        return same
    try:
        return same | {"crontab": crontab_of(cron), "interval_s": None}
    except ValueError as wrong:
        raise typer.BadParameter(f"--cron {wrong}") from None


def _show(schedule: Schedule, *, as_json: bool) -> None:
    if as_json:
        typer.echo(schedule.text)
    else:
        page.show_schedule(schedule.document, output.console())
