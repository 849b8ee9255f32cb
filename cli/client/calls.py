"""Shared by all commands that call the gateway: readable errors, exit codes, showing and following a job."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import typer

from celeriac.client import Client, ClientFailure, Job, Refused, Retries, Submitted, Unreachable
from cli.client.watch import follow, live_view
from cli.pages import output
from cli.pages.job import show_job
from shared.ledger.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVER_ERRORS = 500
_RETRIES = Retries(for_s=10, connect_for_s=0)  # that no gateway is there is said at once


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    NOT_SUCCEEDED = 1  # the job failed, was cancelled, expired or was quarantined; some of many jobs were refused
    WRONG_REQUEST = 2  # refused by the command line or by the gateway
    UNREACHABLE = 3  # there is no gateway, or it is unavailable
    INTERRUPTED = 130


class WrongKey(Exception):
    """The key in the environment cannot be sent."""


@contextmanager
def gateway_at(url: str, *, as_json: bool) -> Iterator[Client]:
    """Yield the gateway; if it does not respond or refuses, end the program with a readable error."""
    errors = output.console(stderr=True)
    try:
        with _client(url) as gateway:
            yield gateway
    except WrongKey as wrong:
        errors.print(str(wrong), markup=False)
        raise typer.Exit(Exit.WRONG_REQUEST) from None
    except Unreachable as away:
        errors.print(str(away), markup=False)
        errors.print("Start one with `celeriac up`, or set its URL with --url or CELERIAC_URL.", markup=False)
        raise typer.Exit(Exit.UNREACHABLE) from None
    except Refused as refused:
        if as_json:
            typer.echo(refused.text)
        output.show_problem(refused.status, refused.problem, errors)
        code = Exit.UNREACHABLE if refused.status >= _SERVER_ERRORS else Exit.WRONG_REQUEST
        raise typer.Exit(code) from None
    except ClientFailure as failure:
        errors.print(output.printable(str(failure)), markup=False)
        raise typer.Exit(Exit.NOT_SUCCEEDED) from None
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stderr.close()
        raise typer.Exit(Exit.DONE) from None
    except OSError as failure:  # of a file: those of the network are `Unreachable`
        errors.print(f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure), markup=False)
        raise typer.Exit(Exit.NOT_SUCCEEDED) from None


def _client(url: str) -> Client:
    try:
        return Client(url, retries=_RETRIES)
    except ValueError as wrong:
        raise WrongKey(str(wrong)) from None


def show(job: Job[Any], *, as_json: bool) -> None:
    """Print a job."""
    if as_json:
        typer.echo(job.text)
    else:
        show_job(job.document, output.console())


def announce(gateway: Client, accepted: Submitted[Any], *, wait: bool, as_json: bool) -> None:
    """Print only the id of an accepted job, for scripts; with `wait`, follow the job."""
    if wait:
        follow_to_end(gateway, accepted.id, as_json=as_json, timeout_s=None)
    elif as_json:
        typer.echo(accepted.text)
    else:
        typer.echo(accepted.id)
        output.console(stderr=True).print(f"celeriac wait {accepted.id}", style="dim")


def follow_to_end(gateway: Client, job_id: str, *, as_json: bool, timeout_s: float | None) -> None:
    """Follow a job, print it, and exit with the code of its outcome."""
    try:
        with live_view(output.console(stderr=True)) as view:
            job = follow(gateway, job_id, view, timeout_s=timeout_s)
    except KeyboardInterrupt:
        dashes = ["--"] if job_id.startswith("-") else []
        typer.echo(f"The job continues. Stop it with: {shlex.join(['celeriac', 'cancel', *dashes, job_id])}", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    show(job, as_json=as_json)
    if not job.has_ended:
        typer.echo(f"The job did not end within {timeout_s:g} s.", err=True)
    raise typer.Exit(Exit.DONE if job.state is State.SUCCEEDED else Exit.NOT_SUCCEEDED)
