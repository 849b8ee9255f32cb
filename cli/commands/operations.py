"""Commands for queues, workers and dead letters."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from celeriac.client import DEFAULT_URL
from celeriac.client.gateway import segment
from cli.client.calls import gateway_at
from cli.commands.options import Json, Url
from cli.pages import operations as page
from cli.pages import output

QueueName = Annotated[str, typer.Argument(help="The queue.", metavar="NAME")]
LetterId = Annotated[str, typer.Argument(help="Id of the dead letter.", metavar="ID")]
_LETTERS_SHOWN = 200  # per page


class ListedUnlessNamed(TyperGroup):
    """A group whose default command is `list`: `celeriac queues --json` is `celeriac queues list --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `list` if no command is given."""
        names_one = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if names_one else ["list", *args])


queues = typer.Typer(name="queues", cls=ListedUnlessNamed, help="List queues; pause and resume them.")


@queues.command("list")
def list_queues(*, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List the queues with their waiting jobs, running jobs and workers."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", "/queues")
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_queues(answer.document["queues"], output.console())


@queues.command("pause")
def pause_queue(queue: QueueName, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Pause a queue: no job starts until it is resumed. Running jobs continue."""
    _change(queue, "pause", url, as_json=as_json)


@queues.command("resume")
def resume_queue(queue: QueueName, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Resume a queue: its held jobs start again, in their order."""
    _change(queue, "resume", url, as_json=as_json)


def workers(*, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List the workers and their running jobs."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", "/workers")
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_workers(answer.document["workers"], output.console())


def _change(queue: str, how: str, url: str, *, as_json: bool) -> None:
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("POST", f"/queues/{segment(queue)}/{how}")
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_queues([answer.document], output.console())


dead_letters = typer.Typer(
    name="dead-letters",
    cls=ListedUnlessNamed,
    help="List, show, requeue and delete dead letters: messages that no worker could read.",
)


@dead_letters.command("list")
def list_dead_letters(
    *,
    page_token: Annotated[str | None, typer.Option(help="`next_page_token` of the previous page.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List the dead letters, newest first."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", "/dead-letters", page_size=_LETTERS_SHOWN, page_token=page_token)
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_dead_letters(answer.document, output.console())


@dead_letters.command("show")
def show_dead_letter(letter: LetterId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show a dead letter with its message."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", f"/dead-letters/{segment(letter)}")
        if as_json:
            typer.echo(answer.text)
        else:
            page.show_dead_letter(answer.document)


@dead_letters.command("requeue")
def requeue_dead_letter(letter: LetterId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Put the message of a dead letter back at the end of its queue."""
    with gateway_at(url, as_json=as_json) as gateway:
        gateway.call("POST", f"/dead-letters/{segment(letter)}/requeue")
        if not as_json:
            typer.echo("requeued")


@dead_letters.command("delete")
def delete_dead_letter(letter: LetterId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Delete a dead letter and its message."""
    with gateway_at(url, as_json=as_json) as gateway:
        gateway.call("DELETE", f"/dead-letters/{segment(letter)}")
        if not as_json:
            typer.echo("deleted")
