"""Options shared by several commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.arguments import Mistyped, read_params
from cli.commands.fields import OptionsOf
from shared.contract.options import RunOptions, SubmissionOptions
from shared.ledger.calling.filters import JobCriteria

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Url = Annotated[str, typer.Option("--url", envvar="CELERIAC_URL", help="URL of the gateway.")]
Json = Annotated[bool, typer.Option("--json", help="Print only the JSON of the response.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job until it ends.")]

Params = Annotated[str | None, typer.Option(help="Parameters: a JSON object, @FILE, or - for standard input.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Set one parameter: a.b=VALUE. VALUE is JSON; anything else is text.", metavar="NAME=VALUE"
    ),
]

JobOptions = Annotated[dict[str, Any], OptionsOf(SubmissionOptions)]  # how to run a job, and when
ScheduleOptions = Annotated[dict[str, Any], OptionsOf(RunOptions)]  # how to run each job of a schedule
Criteria = Annotated[dict[str, Any], OptionsOf(JobCriteria)]  # which jobs
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done without doing it.")]


def typed_params(
    source: str | None, assignments: Sequence[str] | None, *, of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the parameters; without `source`, the assignments are applied to those of `of`.

    Raises `typer.BadParameter`.
    """
    try:
        return read_params(source, assignments or (), of=of)
    except Mistyped as mistyped:
        raise typer.BadParameter(str(mistyped)) from None
