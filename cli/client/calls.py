"""Shared by all commands that call the gateway: readable errors, exit codes, showing and following a job."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

import typer

from cli.client.gateway import Answer, Gateway, Refused, Unreachable
from cli.client.watch import follow, live_view
from cli.pages import output
from cli.pages.job import show_job
from shared.ledger.states import FINAL_STATES, State

if TYPE_CHECKING:
    from collections.abc import Iterator


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    NOT_SUCCEEDED = 1  # the job failed, was cancelled, expired or was quarantined; some of many jobs were refused
    WRONG_REQUEST = 2  # refused by the command line or by the gateway
    UNREACHABLE = 3  # there is no gateway, or it is unavailable
    INTERRUPTED = 130


@contextmanager
def gateway_at(url: str, *, as_json: bool) -> Iterator[Gateway]:
    """Yield the gateway; if it does not respond or refuses, end the program with a readable error."""
    errors = output.console(stderr=True)
    try:
        with Gateway(url) as gateway:
            yield gateway
    except Unreachable as away:
        errors.print(str(away), markup=False)
        errors.print("Start one with `celeriac up`, or set its URL with --url or CELERIAC_URL.", markup=False)
        raise typer.Exit(Exit.UNREACHABLE) from None
    except Refused as refused:
        if as_json:
            typer.echo(refused.text)
        output.show_problem(refused.status, refused.problem, errors)
        code = Exit.UNREACHABLE if refused.is_servers_fault else Exit.WRONG_REQUEST
        raise typer.Exit(code) from None
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stderr.close()
        raise typer.Exit(Exit.DONE) from None


def show(answer: Answer, *, as_json: bool) -> None:
    """Print a job."""
    if as_json:
        typer.echo(answer.text)
    else:
        show_job(answer.document, output.console())


def announce(gateway: Gateway, accepted: Answer, *, wait: bool, as_json: bool) -> None:
    """Print only the id of an accepted job, for scripts; with `wait`, follow the job."""
    job_id = accepted.document["id"]
    if wait:
        follow_to_end(gateway, job_id, as_json=as_json, timeout_s=None)
    elif as_json:
        typer.echo(accepted.text)
    else:
        typer.echo(job_id)
        output.console(stderr=True).print(f"celeriac wait {job_id}", style="dim")


def follow_to_end(gateway: Gateway, job_id: str, *, as_json: bool, timeout_s: float | None) -> None:
    """Follow a job, print it, and exit with the code of its outcome."""
    try:
        with live_view(output.console(stderr=True)) as view:
            answer = follow(gateway, job_id, view, timeout_s=timeout_s)
    except KeyboardInterrupt:
        dashes = ["--"] if job_id.startswith("-") else []
        typer.echo(f"The job continues. Stop it with: {shlex.join(['celeriac', 'cancel', *dashes, job_id])}", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    show(answer, as_json=as_json)
    state: str = answer.document["state"]
    if state not in FINAL_STATES:
        typer.echo(f"The job did not end within {timeout_s:g} s.", err=True)
    raise typer.Exit(Exit.DONE if state == State.SUCCEEDED else Exit.NOT_SUCCEEDED)
