"""Commands for keys, and `me`. The first key is made past HTTP: before it, there is none to show."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from celeriac.client import DEFAULT_URL
from celeriac.client.gateway import key_of_environment, segment
from cli.client.calls import Exit, gateway_at
from cli.commands.operations import ListedUnlessNamed
from cli.commands.options import Json, Url
from cli.local.folder import chooses_a_broker, running_in
from cli.pages import keys as page
from cli.pages import output
from shared.access.callers import DEFAULT_TENANT, Restrictions
from shared.access.scopes import PRESETS, Preset, Scope
from shared.access.terms import DAY_S, KeyTerms

KeyId = Annotated[str, typer.Argument(help="The key's id: the characters behind `cel_`.", metavar="ID")]
_SHOWN = 200  # per page

keys = typer.Typer(name="keys", cls=ListedUnlessNamed, help="List, make, show, revoke and roll keys.")


@keys.command("list")
def list_keys(
    *,
    page_token: Annotated[str | None, typer.Option(help="`next_page_token` of the previous page.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List the keys, newest first."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", "/keys", page_size=_SHOWN, page_token=page_token)
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_keys(answer.document, output.console())


@keys.command("create")
def create_key(
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    preset: Annotated[Preset | None, typer.Option(help="The scopes of a usual role.")] = None,
    scopes: Annotated[list[Scope] | None, typer.Option("--scope", help="A scope; may be given several times.")] = None,
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="Only jobs of this kind or pattern.")] = None,
    queues: Annotated[list[str] | None, typer.Option("--queue", help="Only jobs in this queue.")] = None,
    connections: Annotated[
        list[str] | None,
        typer.Option("--connection", help="Only this connection, to read or to write.", metavar="NAME:read|write"),
    ] = None,
    max_priority: Annotated[int | None, typer.Option(help="Only jobs of at most this priority.")] = None,
    expires_in_days: Annotated[float, typer.Option(help="Days until it expires.")] = 365.0,
    data: Annotated[Path, typer.Option(envvar="CELERIAC_DATA", help="Data folder of `celeriac up`.")] = Path("data"),
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Make a key, and print it: it is shown this once.

    With CELERIAC_API_KEY the gateway makes it. Without, it is written into the ledger of this machine, past HTTP: that
    which CELERIAC_LEDGER_URL or CELERY_BROKER_URL names, or that of the `celeriac up` in --data.
    """
    if (preset is None) == (not scopes):
        raise typer.BadParameter("Set either --preset or --scope.")
    restrictions = _restrictions(kinds, queues, connections, max_priority)
    called = name or f"{preset or 'key'} of {getpass.getuser()}"
    expires_in_s = expires_in_days * DAY_S
    is_named = chooses_a_broker()
    ledger_url = None if is_named else _ledger_of(data)
    if not _has_key() and (is_named or ledger_url):
        allowed = PRESETS[preset] if preset else frozenset(scopes or ())
        terms = KeyTerms(DEFAULT_TENANT, called, allowed, restrictions, "command line", expires_in_s)
        _write_past_http(terms, ledger_url, as_json=as_json)
        return
    body = {"name": called, "restrictions": restrictions.model_dump(exclude_none=True), "expires_in_s": expires_in_s}
    chosen: dict[str, Any] = {"preset": preset} if preset else {"scopes": scopes}
    with gateway_at(url, as_json=as_json) as gateway:
        _show_new(gateway.call("POST", "/keys", body | chosen).document, as_json=as_json)


@keys.command("show")
def show_key(key: KeyId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show what a key allows, without its text."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", f"/keys/{segment(key)}")
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_key(answer.document)


@keys.command("revoke")
def revoke_key(key: KeyId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Revoke a key for good: nobody can use it from now on."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("POST", f"/keys/{segment(key)}/revoke")
        if as_json:
            typer.echo(answer.text)
        else:
            typer.echo("revoked")


@keys.command("roll")
def roll_key(
    key: KeyId,
    *,
    overlap_s: Annotated[float, typer.Option(help="Seconds for which the present secret stays valid.")] = 0.0,
    expires_in_days: Annotated[float | None, typer.Option(help="Days until it expires; default: as before.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Give a key a new secret, and print it: it is shown this once."""
    body = {"overlap_s": overlap_s} | ({} if expires_in_days is None else {"expires_in_s": expires_in_days * DAY_S})
    with gateway_at(url, as_json=as_json) as gateway:
        _show_new(gateway.call("POST", f"/keys/{segment(key)}/roll", body).document, as_json=as_json)


def me(*, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show who you are to the gateway, and what you may do."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", "/me")
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_me(answer.document)


def _write_past_http(terms: KeyTerms, ledger_url: str | None, *, as_json: bool) -> None:
    from shared.access.past_http import NotWritten, write_here  # noqa: PLC0415 - no other command needs the ledger

    try:
        new = write_here(terms, ledger_url)
    except NotWritten as failure:
        typer.echo(str(failure), err=True)
        raise typer.Exit(Exit.UNREACHABLE) from None
    _show_new({"id": new.record.id, "name": new.record.name, "key": new.text}, as_json=as_json)


def _ledger_of(data: Path) -> str | None:
    """Return the URL of the ledger of the `celeriac up` that runs in a data folder, if there is one."""
    url = str((running_in(data) or {}).get("broker_url", ""))
    return url if url.startswith("redis") else None


def _has_key() -> bool:
    try:
        return bool(key_of_environment())
    except ValueError as wrong:
        typer.echo(str(wrong), err=True)
        raise typer.Exit(Exit.WRONG_REQUEST) from None


def _restrictions(
    kinds: list[str] | None, queues: list[str] | None, connections: list[str] | None, max_priority: int | None
) -> Restrictions:
    named = dict(one.rpartition(":")[::2] for one in connections) if connections else None
    try:
        return Restrictions.model_validate_json(
            json.dumps({"kinds": kinds, "queues": queues, "connections": named, "max_priority": max_priority})
        )
    except ValueError as wrong:
        raise typer.BadParameter(f"Such restrictions do not exist: {wrong}") from None


def _show_new(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document))
        return
    typer.echo(document["key"])
    typer.echo(f"Key {document['id']} ({document['name']}). It is not shown again: keep it, and set", err=True)
    typer.echo("CELERIAC_API_KEY to it for the command line and the clients.", err=True)
