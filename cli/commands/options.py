"""Options that several commands have, each described once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.arguments import Mistyped, read_params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Url = Annotated[str, typer.Option("--url", envvar="CELERIAC_URL", help="Where the gateway is.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly the server's JSON, and nothing else.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job until it ends.")]

Params = Annotated[str | None, typer.Option(help="Parameters: a JSON object, @FILE, or - for standard input.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set one parameter: a.b=VALUE. JSON, else text.", metavar="NAME=VALUE"),
]

# How a job is to be run
Priority = Annotated[int | None, typer.Option(help="0 to 9; 9 is most urgent, 4 is usual.")]
Queue = Annotated[str | None, typer.Option(help="Another queue than the kind's own.")]
ExpiresInS = Annotated[
    float | None, typer.Option("--expires-in-s", help="Do not start later than this many seconds from now.")
]
TimeLimitS = Annotated[float | None, typer.Option("--time-limit-s", help="Longest run of one attempt, in seconds.")]
MaxRetries = Annotated[int | None, typer.Option(help="Retries after the first attempt.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; repeatable.")]
ConcurrencyKey = Annotated[
    str | None, typer.Option(help="Of jobs with this word only so many run at once; the rest wait.")
]
ConcurrencyLimit = Annotated[int | None, typer.Option(help="How many of them; 1 unless said.")]
CallbackUrl = Annotated[str | None, typer.Option(help="Where to send a signed POST when the job has ended.")]

# Which jobs
OfState = Annotated[list[str] | None, typer.Option("--state", help="Only this state; repeatable.")]
OfKind = Annotated[str | None, typer.Option("--kind", help="Only this kind.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only this queue.")]
OfTag = Annotated[str | None, typer.Option("--tag", help="Only with this tag.")]
OfSchedule = Annotated[str | None, typer.Option("--schedule", help="Only made by this schedule (its id).")]
CreatedAfter = Annotated[str | None, typer.Option(help="Only after this time (RFC 3339).")]
CreatedBefore = Annotated[str | None, typer.Option(help="Only before this time (RFC 3339).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


def typed_params(
    source: str | None, assignments: Sequence[str] | None, *, of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the parameters as typed; without `source`, the assignments are made in those of `of`.

    Raises `typer.BadParameter`.
    """
    try:
        return read_params(source, assignments or (), of=of)
    except Mistyped as mistyped:
        raise typer.BadParameter(str(mistyped)) from None
