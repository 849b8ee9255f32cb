"""`celeriac doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.client.calls import Exit
from cli.commands.options import Json
from cli.pages import output
from cli.pages.doctor import show_finding


def doctor(
    *,
    url: Annotated[
        str | None, typer.Option("--url", help="URL of the gateway; default: CELERIAC_URL, or that of `celeriac up`.")
    ] = None,
    data: Annotated[
        Path, typer.Option(envvar="CELERIAC_DATA", help="Folder of a `celeriac up`, looked at if no broker is set.")
    ] = Path("data"),
    as_json: Json = False,
) -> None:
    """Say what is wrong with a set-up: settings, broker, ledger, store, connections, gateway, workers, clocks.

    It reads the environment that gateway and workers have, and works with nothing running. The exit code is 1 if a
    check failed.
    """
    from cli.doctor.examine import examine  # noqa: PLC0415 - Celery takes a second to import; no other command needs it
    from cli.doctor.findings import Outcome, worst  # noqa: PLC0415 - the same

    found = []
    for finding in examine(url, data):
        found.append(finding)
        if not as_json:
            words = f"{finding.message} {finding.remedy}".rstrip()
            show_finding(finding.check, finding.outcome, words, output.console())
    if as_json:
        typer.echo(json.dumps({"outcome": worst(found), "checks": [asdict(finding) for finding in found]}))
    raise typer.Exit(Exit.NOT_SUCCEEDED if worst(found) is Outcome.FAIL else Exit.DONE)
