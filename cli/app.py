"""`celeriac`: submit and follow jobs over HTTP; `celeriac up` runs a service locally."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from celeriac.client import DEFAULT_URL
from celeriac.client.gateway import segment
from cli.client.calls import Exit, announce, follow_to_end, gateway_at, show
from cli.commands.attaching import Files, attached, with_files
from cli.commands.authoring import check, contracts, new_kind
from cli.commands.doctor import doctor
from cli.commands.fields import with_options
from cli.commands.files import download, list_files, upload
from cli.commands.jobs import cancel, delete, rerun
from cli.commands.keys import keys, me
from cli.commands.operations import dead_letters, queues, workers
from cli.commands.options import Assignments, Criteria, JobId, JobOptions, Json, Params, Url, Wait, typed_params
from cli.commands.schedules import schedules
from cli.local.ports import CannotStart
from cli.pages import kind as kind_page
from cli.pages import output

app = typer.Typer(
    help="Submit and follow jobs, and fetch their results. `celeriac up` runs a complete service on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
@with_options
def submit(
    kind: Annotated[str, typer.Argument(help="Kind of job, such as etl.run_pipeline; see `celeriac kinds`.")],
    *,
    params: Params = None,
    assignments: Assignments = None,
    files: Files = None,
    options: JobOptions,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key and request return the same job.")
    ] = None,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check the request without submitting it.")
    ] = False,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Submit a job."""
    to_upload = attached(files, params=params)
    given = typed_params(params, assignments)
    if to_upload and idempotency_key:
        raise typer.BadParameter(
            "--idempotency-key and --file: each upload has a uri of its own, so that the same command would be another "
            "request. Use `celeriac upload`, and give its uri to each."
        )
    with gateway_at(url, as_json=as_json) as gateway:
        if to_upload:
            given = with_files(gateway, kind, given, to_upload, options, only_check=validate_only)
        if not validate_only:
            accepted = gateway.submit(kind, given, idempotency_key=idempotency_key, **options)
            announce(gateway, accepted, wait=wait, as_json=as_json)
            return
        valid = gateway.validate(kind, given, **options)
        if as_json:
            typer.echo(valid.text)
        else:
            steps = ", ".join(valid.steps)
            typer.echo("The request is valid and was not submitted." + (f" Steps: {steps}." if steps else ""))


@app.command()
def get(job_id: JobId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show a job."""
    with gateway_at(url, as_json=as_json) as gateway:
        show(gateway.get(job_id), as_json=as_json)


@app.command()
def wait(
    job_id: JobId,
    *,
    timeout_s: Annotated[float | None, typer.Option("--timeout-s", help="Maximum wait in seconds.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Follow a job until it ends. The exit code is 0 if it succeeded."""
    with gateway_at(url, as_json=as_json) as gateway:
        follow_to_end(gateway, job_id, as_json=as_json, timeout_s=timeout_s)


@app.command("list")
@with_options
def list_jobs(
    *,
    chosen: Criteria,
    page_size: Annotated[
        int | None, typer.Option("--limit", "--page-size", help="Maximum number of jobs; default 50.")
    ] = None,
    page_token: Annotated[str | None, typer.Option(help="Continue after an earlier page.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", "/jobs", **chosen, page_size=page_size, page_token=page_token)
        if as_json:
            typer.echo(answer.text)
            return
        output.show_jobs(answer.document["jobs"], output.console())
        if token := answer.document["next_page_token"]:
            output.console(stderr=True).print(f"more: --page-token {token}", style="dim")


@app.command()
def logs(
    job_id: JobId,
    *,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Show a job's log."""
    with gateway_at(url, as_json=as_json) as gateway:
        if as_json and not follow_it:
            typer.echo(gateway.call("GET", f"/jobs/{segment(job_id)}/logs").text)
            return
        for line in gateway.logs(job_id, follow=follow_it):
            typer.echo(json.dumps(line.document) if as_json else output.log_line(line.document))


@app.command()
def kinds(
    kind: Annotated[str | None, typer.Argument(help="Show this kind with its parameters.")] = None,
    *,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List the kinds of jobs, or show one kind's parameters and an example."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", f"/job-kinds/{segment(kind)}" if kind else "/job-kinds")
        if as_json:
            typer.echo(answer.text)
        elif kind:
            kind_page.show_kind(answer.document, output.console())
        else:
            kind_page.show_kinds(answer.document["kinds"], output.console())


@app.command("open")
def open_page(
    *,
    only_print: Annotated[bool, typer.Option("--print", help="Print the page's address and start no browser.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Open the gateway's page of operations in a browser."""
    with gateway_at(url, as_json=False) as gateway:
        gateway.call("GET", "/livez")  # an address that nothing answers is said here, not by the browser
        page = f"{gateway.url}/docs"
    typer.echo(page)
    if not only_print and not webbrowser.open(page):
        typer.echo("There is no browser on this machine: open the address above.", err=True)


@app.command()
def up(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65_535, envvar="CELERIAC_PORT", help="The gateway's port on 127.0.0.1.")
    ] = 8000,
    data: Annotated[Path, typer.Option(envvar="CELERIAC_DATA", help="Folder for all data.", file_okay=False)] = Path(
        "data"
    ),
    valkey_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of the embedded Valkey; default: any free one.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the programs' logs.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again what uses the code of your kinds, when that changes.")
    ] = False,
) -> None:
    """Run broker, gateway, workers and beat on 127.0.0.1 until Ctrl-C.

    If CELERY_BROKER_URL names an external broker, no Valkey is started.
    """
    from cli.local.console import Console  # noqa: PLC0415 - Celery takes a second to import; no other command needs it
    from cli.local.up import run  # noqa: PLC0415 - the same
    from shared.errors import DefinitionError  # noqa: PLC0415 - the same

    try:
        code = run(port=port, folder=data, valkey_port=valkey_port, say=Console().say, quiet=quiet, reload=reload)
    except (CannotStart, DefinitionError) as obstacle:
        typer.echo(str(obstacle), err=True)
        raise typer.Exit(Exit.WRONG_REQUEST) from None
    raise typer.Exit(code)


app.command()(upload)
app.command("files")(list_files)
for _command in (download, doctor, check, new_kind, cancel, rerun, delete, workers, me):
    app.command()(_command)
app.command("retry", hidden=True)(rerun)  # the old name
app.add_typer(contracts)
app.add_typer(queues)
app.add_typer(dead_letters)
app.add_typer(schedules)
app.add_typer(keys)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
