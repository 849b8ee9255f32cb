"""Commands for schedules. A schedule is named by its id, or by its name if that is unique."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from pydantic import BaseModel, Field

from cli.client.calls import announce, gateway_at
from cli.client.gateway import DEFAULT_URL, Answer, Gateway, segment
from cli.commands.fields import OptionsOf, with_options
from cli.commands.operations import ListedUnlessNamed
from cli.commands.options import Assignments, Json, Params, ScheduleOptions, Url, Wait, typed_params
from cli.pages import output
from cli.pages import schedule as page

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_PAGE_SIZE = 200
_TERMS = ("name", "kind", "params", "options", "crontab", "interval_s", "time_zone", "missed", "overlap")


@schedules.command("list")
def list_schedules(*, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List the schedules by name."""
    with gateway_at(url, as_json=as_json) as gateway:
        found = sorted(_all(gateway), key=itemgetter("name"))
    if as_json:
        typer.echo(json.dumps({"schedules": found}))
    else:
        page.show_schedules(found, output.console())


@schedules.command("get")
def get_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show a schedule with its next times and its last job."""
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.get(_path(gateway, which)), as_json=as_json)


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
    body = {
        "name": name,
        "kind": kind,
        "params": typed_params(params, assignments),
        **_terms(**rhythm),
        **({"options": options} if options else {}),
        **({"paused": True} if paused else {}),
    }
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.post("/schedules", body), as_json=as_json)


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
        path = _path(gateway, which)
        before = gateway.get(path).document
        after = {
            **{term: before[term] for term in _TERMS},
            **_terms(**rhythm),
            **({"name": name} if name else {}),
            "params": typed_params(params, assignments, of=before["params"]),
            "options": before["options"] | options,
        }
        _show(gateway.put(path, after), as_json=as_json)


@schedules.command("delete")
def delete_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Delete a schedule but not its jobs."""
    with gateway_at(url, as_json=as_json) as gateway:
        gateway.delete(_path(gateway, which))
        if not as_json:
            typer.echo("deleted")


@schedules.command("pause")
def pause_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Pause a schedule: it submits no jobs until it is resumed."""
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.post(f"{_path(gateway, which)}/pause"), as_json=as_json)


@schedules.command("resume")
def resume_schedule(which: Which, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Resume a schedule from its next time."""
    with gateway_at(url, as_json=as_json) as gateway:
        _show(gateway.post(f"{_path(gateway, which)}/resume"), as_json=as_json)


@schedules.command("run")
def run_schedule(which: Which, *, wait: Wait = False, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Submit a job of a schedule now, even if it is paused."""
    with gateway_at(url, as_json=as_json) as gateway:
        announce(gateway, gateway.post(f"{_path(gateway, which)}/run"), wait=wait, as_json=as_json)


def _all(gateway: Gateway) -> Iterator[dict[str, Any]]:
    """Yield every schedule, page by page."""
    token = None
    while True:
        page = gateway.get("/schedules", page_size=_PAGE_SIZE, page_token=token).document
        yield from page["schedules"]
        if not (token := page["next_page_token"]):
            return


def _path(gateway: Gateway, which: str) -> str:
    """Return the path of the schedule with this id or name. Raises `typer.BadParameter`."""
    try:
        return f"/schedules/{UUID(which)}"
    except ValueError:
        named = [item["id"] for item in _all(gateway) if item["name"] == which]
    if len(named) != 1:
        many = f"{len(named)} schedules are" if named else "No schedule is"
        raise typer.BadParameter(f"{many} called {which!r}; use an id from `celeriac schedules`.")
    return f"/schedules/{segment(named[0])}"


def _terms(*, cron: str | None = None, every_s: float | None = None, **same: Any) -> dict[str, Any]:
    """Return these fields as the gateway expects them. Raises `typer.BadParameter`."""
    if every_s is not None:
        return same | {"crontab": None, "interval_s": every_s}
    if cron is None:
        return same
    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        raise typer.BadParameter(
            f"--cron {cron!r}: use five fields (minute, hour, day, month, weekday), such as '0 9 * * *'."
        )
    return same | {"crontab": dict(zip(_CRON_FIELDS, fields, strict=True)), "interval_s": None}


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
    else:
        page.show_schedule(answer.document, output.console())
