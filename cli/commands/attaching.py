"""The files of a submission: uploaded, and named by its parameters."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from celeriac.client.gateway import segment
from cli.client.transfers import STANDARD, transfers, upload_name
from cli.commands.arguments import Mistyped
from cli.commands.files import refuse_unreadable
from cli.commands.places import put_file
from cli.pages import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celeriac.client import Client

Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        help="Upload a file and set a parameter to it: source=sales.csv. - is standard input.",
        metavar="NAME=PATH",
    ),
]
_NOT_THERE_YET = "artifact://00000000-0000-0000-0000-000000000000/0/"


class Attached(NamedTuple):
    """A file for a parameter."""

    place: str
    path: str


def attached(given: Sequence[str] | None, *, params: str | None) -> list[Attached]:
    """Return what `--file` gives. Raises `typer.BadParameter` if that cannot be uploaded; `params` is `--params`."""
    files = []
    for text in given or ():
        place, equals, path = text.partition("=")
        if not equals or not path or not all(place.split(".")):
            raise typer.BadParameter(f"--file {text}: use NAME=PATH, with dots between nested names.")
        files.append(Attached(place, path))
    refuse_unreadable([file.path for file in files] + [STANDARD] * (params == STANDARD))
    return files


def with_files(
    gateway: Client,
    kind: str,
    params: Mapping[str, Any],
    files: Sequence[Attached],
    options: Mapping[str, Any],
    *,
    only_check: bool,
) -> dict[str, Any]:
    """Return the parameters with the uris of the files, uploaded once the gateway says that it would take the job.

    With `only_check` nothing is sent, and the uris are of no file. Raises `typer.BadParameter`, `Refused`.
    """
    schema = gateway.call("GET", f"/job-kinds/{segment(kind)}").document["params_schema"]
    to_check = _filled(params, files, (_NOT_THERE_YET + upload_name(file.path) for file in files), schema)
    if only_check:
        return to_check
    gateway.validate(kind, to_check, **options)
    with transfers(gateway, output.console(stderr=True)) as sending:
        uris = [sending.upload(file.path).uri for file in files]
    return _filled(params, files, uris, schema)


def _filled(
    params: Mapping[str, Any], files: Sequence[Attached], uris: Iterable[str], schema: Mapping[str, Any]
) -> dict[str, Any]:
    filled = copy.deepcopy(dict(params))
    for file, uri in zip(files, uris, strict=True):
        try:
            put_file(filled, file.place, uri, schema)
        except Mistyped as mistyped:
            raise typer.BadParameter(str(mistyped)) from None
    return filled
