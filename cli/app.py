"""`celeriac`: submit jobs and follow them over HTTP; `celeriac up` runs a service here."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import kind_page, output
from cli.arguments import Mistyped, options_of, read_params
from cli.gateway import DEFAULT_URL, FINAL_STATES, Answer, Gateway, Refused, Unreachable, segment
from cli.ports import CannotStart
from cli.watch import follow, live_view

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    help="Submit jobs, follow them, fetch what they made. `celeriac up` runs a whole service on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Url = Annotated[str, typer.Option("--url", envvar="CELERIAC_URL", help="Where the gateway is.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly the server's JSON, and nothing else.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]


class Exit(IntEnum):
    """What the exit code says."""

    DONE = 0
    NOT_SUCCEEDED = 1  # the job failed, was cancelled, expired or was quarantined
    WRONG_REQUEST = 2  # as typed, or as the gateway sees it
    UNREACHABLE = 3  # no gateway, or one that cannot answer now
    INTERRUPTED = 130


@contextmanager
def _gateway(url: str, *, as_json: bool) -> Iterator[Gateway]:
    """Yield the gateway; end the program with a readable error where it does not answer or refuses."""
    errors = output.console(stderr=True)
    try:
        with Gateway(url) as gateway:
            yield gateway
    except Unreachable as away:
        errors.print(str(away), markup=False)
        errors.print("Start one with `celeriac up`, or name another with --url or CELERIAC_URL.", markup=False)
        raise typer.Exit(Exit.UNREACHABLE) from None
    except Refused as refused:
        if as_json:
            typer.echo(refused.text)
        output.show_problem(refused.status, refused.problem, errors)
        code = Exit.UNREACHABLE if refused.is_servers_fault else Exit.WRONG_REQUEST
        raise typer.Exit(code) from None
    except BrokenPipeError:  # the reader of our output has enough
        sys.stderr.close()
        raise typer.Exit(Exit.DONE) from None


@app.command()
def submit(
    kind: Annotated[str, typer.Argument(help="What to run, such as etl.run_pipeline; see `celeriac kinds`.")],
    *,
    params: Annotated[
        str | None, typer.Option(help="Parameters: a JSON object, @FILE, or - for standard input.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set one parameter: a.b=VALUE. JSON, else text.", metavar="NAME=VALUE"),
    ] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9; 9 is most urgent, 4 is usual.")] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the kind's own.")] = None,
    delay_s: Annotated[float | None, typer.Option("--delay-s", help="Start this many seconds from now.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Start at this time (RFC 3339).")] = None,
    expires_in_s: Annotated[
        float | None, typer.Option("--expires-in-s", help="Do not start later than this many seconds from now.")
    ] = None,
    time_limit_s: Annotated[
        float | None, typer.Option("--time-limit-s", help="Longest run of one attempt, in seconds.")
    ] = None,
    max_retries: Annotated[int | None, typer.Option(help="Retries after the first attempt.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; repeatable.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key and request again give the same job, not another.")
    ] = None,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check the request and submit nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job until it ends.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Submit a job."""
    try:
        given = read_params(params, assignments or [])
    except Mistyped as mistyped:
        raise typer.BadParameter(str(mistyped)) from None
    options = options_of(
        {
            "priority": priority,
            "queue": queue,
            "delay_s": delay_s,
            "run_at": run_at,
            "expires_in_s": expires_in_s,
            "time_limit_s": time_limit_s,
            "max_retries": max_retries,
            "tags": tags or [],
        }
    )
    body = {"kind": kind, "params": given} | ({"options": options} if options else {})
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
    with _gateway(url, as_json=as_json) as gateway:
        answer = gateway.post("/jobs", body, headers=headers, validate_only=True if validate_only else None)
        if wait and not validate_only:
            _follow(gateway, answer.document["id"], as_json=as_json, timeout_s=None)
        elif as_json:
            typer.echo(answer.text)
        elif validate_only:
            steps = ", ".join(answer.document["steps"])
            typer.echo("The request is valid; nothing was submitted." + (f" Steps: {steps}." if steps else ""))
        else:
            job_id = answer.document["id"]
            typer.echo(job_id)
            output.console(stderr=True).print(f"celeriac wait {job_id}", style="dim")


@app.command()
def get(job_id: JobId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show a job as it is now."""
    with _gateway(url, as_json=as_json) as gateway:
        _show(gateway.job(job_id), as_json=as_json)


@app.command()
def wait(
    job_id: JobId,
    *,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout-s", help="Wait no longer than this many seconds.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Follow a job until it ends. Exit code 0: it succeeded."""
    with _gateway(url, as_json=as_json) as gateway:
        _follow(gateway, job_id, as_json=as_json, timeout_s=timeout_s)


@app.command("list")
def list_jobs(
    *,
    state: Annotated[list[str] | None, typer.Option(help="Only this state; repeatable.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    created_after: Annotated[str | None, typer.Option(help="Only after this time (RFC 3339).")] = None,
    created_before: Annotated[str | None, typer.Option(help="Only before this time (RFC 3339).")] = None,
    page_size: Annotated[int | None, typer.Option(help="At most so many; 50 unless said.")] = None,
    page_token: Annotated[str | None, typer.Option(help="Go on where another list ended.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with _gateway(url, as_json=as_json) as gateway:
        answer = gateway.get(
            "/jobs",
            state=state,
            kind=kind,
            queue=queue,
            tag=tag,
            created_after=created_after,
            created_before=created_before,
            page_size=page_size,
            page_token=page_token,
        )
        if as_json:
            typer.echo(answer.text)
            return
        output.show_jobs(answer.document["jobs"], output.console())
        if token := answer.document["next_page_token"]:
            output.console(stderr=True).print(f"more: --page-token {token}", style="dim")


@app.command()
def cancel(job_id: JobId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Cancel a job: it does not start, or it stops."""
    with _gateway(url, as_json=as_json) as gateway:
        answer = gateway.post(f"/jobs/{segment(job_id)}/cancel")
        if as_json:
            typer.echo(answer.text)
        else:
            running = answer.document["state"] == "cancel_requested"
            typer.echo("it runs and was asked to stop" if running else answer.document["state"])


@app.command()
def logs(
    job_id: JobId,
    *,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Show what a job wrote to its log."""
    with _gateway(url, as_json=as_json) as gateway:
        if follow_it:
            for event in gateway.events(job_id):
                if event.event == "log":
                    typer.echo(event.text if as_json else output.log_line(event.data))
            return
        answer = gateway.get(f"/jobs/{segment(job_id)}/logs")
        if as_json:
            typer.echo(answer.text)
            return
        for line in answer.document["lines"]:
            typer.echo(output.log_line(line))


@app.command()
def kinds(
    kind: Annotated[str | None, typer.Argument(help="Show this one with its parameters.")] = None,
    *,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List what can be submitted, or show one kind's parameters and an example."""
    with _gateway(url, as_json=as_json) as gateway:
        answer = gateway.get(f"/job-kinds/{segment(kind)}" if kind else "/job-kinds")
        if as_json:
            typer.echo(answer.text)
        elif kind:
            kind_page.show_kind(answer.document, output.console())
        else:
            kind_page.show_kinds(answer.document["kinds"], output.console())


@app.command()
def up(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65_535, envvar="CELERIAC_PORT", help="The gateway's port on 127.0.0.1.")
    ] = 8000,
    data: Annotated[
        Path, typer.Option(envvar="CELERIAC_DATA", help="Folder for everything that is kept.", file_okay=False)
    ] = Path("data"),
    valkey_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of the embedded Valkey; default: any free one.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show what the programs log.")] = False,
) -> None:
    """Run broker, gateway, workers and beat on 127.0.0.1 until Ctrl-C.

    CELERY_BROKER_URL names an external broker; then no Valkey is started.
    """
    from cli.console import Console  # noqa: PLC0415 - Celery takes a second to import; no other command needs it
    from cli.up import run  # noqa: PLC0415 - the same
    from shared.errors import DefinitionError  # noqa: PLC0415 - the same

    try:
        code = run(port=port, folder=data, valkey_port=valkey_port, say=Console().say, quiet=quiet)
    except (CannotStart, DefinitionError) as obstacle:
        typer.echo(str(obstacle), err=True)
        raise typer.Exit(Exit.WRONG_REQUEST) from None
    raise typer.Exit(code)


def _show(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer.text)
    else:
        output.show_job(answer.document, output.console())


def _follow(gateway: Gateway, job_id: str, *, as_json: bool, timeout_s: float | None) -> None:
    """Follow a job, print it, and end the program with what became of it."""
    try:
        with live_view(output.console(stderr=True)) as view:
            answer = follow(gateway, job_id, view, timeout_s=timeout_s)
    except KeyboardInterrupt:
        typer.echo(f"The job goes on. Stop it with: celeriac cancel {job_id}", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    _show(answer, as_json=as_json)
    state: Any = answer.document["state"]
    if state not in FINAL_STATES:
        typer.echo(f"not ended within {timeout_s:g} s", err=True)
    raise typer.Exit(Exit.DONE if state == "succeeded" else Exit.NOT_SUCCEEDED)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
