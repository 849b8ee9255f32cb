"""Commands that rerun, cancel or delete jobs: one, several, or all that match options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from celeriac.client import DEFAULT_URL, Client
from cli.client.calls import Exit, announce, gateway_at
from cli.commands.fields import with_options
from cli.commands.options import Assignments, Criteria, DryRun, JobId, Json, Params, Url, Wait, typed_params
from cli.pages import operations as page
from cli.pages import output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

JobIds = Annotated[
    list[str] | None,
    typer.Argument(help="Ids of the jobs. Without ids, choose jobs by options such as --state.", metavar="[ID]..."),
]

_OUTCOMES = {  # of a request to cancel
    "cancel_requested": "running; asked to stop",
    "cancel_noted": "not found on the broker; cancelled if a worker takes its message",
}


@with_options
def cancel(
    job_ids: JobIds = None,
    *,
    chosen: Criteria,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Cancel jobs: one, several, or all that match the options. Waiting jobs do not start, running jobs stop."""
    wanted = _wanted(job_ids, chosen)
    with gateway_at(url, as_json=as_json) as gateway:
        if (only := _single(wanted)) and not dry_run:
            cancelled = gateway.cancel(only)
            typer.echo(cancelled.text if as_json else _OUTCOMES.get(cancelled.state, cancelled.state))
            return
        _call_for_many(gateway, "/jobs/cancel", {**wanted, "dry_run": dry_run}, page.show_cancelled, as_json=as_json)


@with_options
def rerun(
    job_ids: JobIds = None,
    *,
    params: Params = None,
    assignments: Assignments = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Run only those steps of a workflow that did not succeed.")
    ] = False,
    wait: Wait = False,
    chosen: Criteria,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Run jobs that did not succeed again, each as a new job. A single job can be given other parameters."""
    wanted = _wanted(job_ids, chosen)
    only = _single(wanted)
    if (not only or dry_run) and (params is not None or assignments or only_failed or wait):
        raise typer.BadParameter("--params, --set, --only-failed and --wait need exactly one job id.")
    with gateway_at(url, as_json=as_json) as gateway:
        if not only or dry_run:
            body = {**wanted, "dry_run": dry_run}
            _call_for_many(gateway, "/jobs/rerun", body, page.show_reruns, as_json=as_json)
            return
        changed: dict[str, Any] = {"only_failed": True} if only_failed else {}
        if params is not None or assignments:
            before = gateway.get(only).document["params"] if params is None else None
            changed["params"] = typed_params(params, assignments, of=before)
        announce(gateway, gateway.rerun(only, **changed), wait=wait, as_json=as_json)


def delete(job_id: JobId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Delete an ended job with its result, its log and its files."""
    with gateway_at(url, as_json=as_json) as gateway:
        gateway.delete(job_id)
        if not as_json:
            typer.echo("forgotten")


def _wanted(job_ids: Sequence[str] | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the selection of jobs for the gateway. Raises `typer.BadParameter`."""
    if bool(job_ids) == bool(chosen):
        raise typer.BadParameter("Give either job ids or options that choose jobs, such as --state, --kind or --tag.")
    return {"ids": job_ids} if job_ids else {"filter": dict(chosen)}


def _single(wanted: Mapping[str, Any]) -> str | None:
    """Return the id if exactly one job is named."""
    ids = wanted.get("ids", ())
    return ids[0] if len(ids) == 1 else None


def _call_for_many(
    gateway: Client,
    path: str,
    body: dict[str, Any],
    print_answer: Callable[[Mapping[str, Any]], None],
    *,
    as_json: bool,
) -> None:
    """Repeat the call until all jobs of the filter are done; each response has at most 1,000.

    With `as_json` every response is a line. Ends the program with `NOT_SUCCEEDED` if a job was refused.
    """
    found = refused = 0
    while True:
        answer = gateway.call("POST", path, body)
        refused += len(answer.document["refused"])
        found += sum(len(jobs) for jobs in answer.document.values() if isinstance(jobs, list))
        if as_json:
            typer.echo(answer.text)
        else:
            print_answer(answer.document)
        if (token := answer.document["next_page_token"]) is None:
            break
        body = {**body, "filter": {**body["filter"], "page_token": token}}
    if not as_json:
        summary = f"jobs: {found:,}" + (f", refused: {refused:,}" if refused else "")
        output.console(stderr=True).print(summary, style="dim")
    if refused:
        raise typer.Exit(Exit.NOT_SUCCEEDED)
