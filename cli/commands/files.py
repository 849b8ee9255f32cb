"""Commands for files: upload, list, download."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from celeriac.client import DEFAULT_URL, JobArtifact
from celeriac.client.gateway import segment
from cli.client.calls import Exit, gateway_at
from cli.client.transfers import STANDARD, transfers
from cli.commands.options import JobId, Json, Url
from cli.pages import output
from cli.pages.job import show_files
from shared.contract.artifacts import NAME_PATTERN
from shared.contract.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence


def upload(
    paths: Annotated[list[str], typer.Argument(help="Files; - is standard input.", metavar="FILE...")],
    *,
    name: Annotated[str | None, typer.Option(help="Its name in the store; default: that of the file.")] = None,
    media_type: Annotated[str | None, typer.Option(help="Its media type; default: by its name.")] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Upload files for use by jobs, and print the uri of each."""
    if name is not None:
        if len(paths) > 1:
            raise typer.BadParameter("--name is for a single file.")
        if not re.fullmatch(NAME_PATTERN, name):
            raise typer.BadParameter(
                f"--name {name!r}: use at most 128 letters, digits, '.', '_' and '-', the first a letter or digit."
            )
    refuse_unreadable(paths)
    with gateway_at(url, as_json=as_json) as gateway, transfers(gateway, output.console(stderr=True)) as files:
        for path in paths:
            artifact = files.upload(path, name=name, media_type=media_type)
            typer.echo(artifact.model_dump_json() if as_json else artifact.uri)


def refuse_unreadable(paths: Sequence[str]) -> None:
    """Raise `typer.BadParameter` if one of these cannot be uploaded, before another one is."""
    if paths.count(STANDARD) > 1:
        raise typer.BadParameter("Standard input can be given only once.")
    for path in (each for each in paths if each != STANDARD):
        if not Path(path).exists():
            raise typer.BadParameter(f"{path} does not exist.")
        if Path(path).is_dir():
            raise typer.BadParameter(f"{path} is a folder. Name the files in it, or pack it.")
        if not os.access(path, os.R_OK):
            raise typer.BadParameter(f"{path} may not be read by this user.")


def list_files(job_id: JobId, *, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List the files of a job and of its steps."""
    with gateway_at(url, as_json=as_json) as gateway:
        answer = gateway.call("GET", f"/jobs/{segment(job_id)}/artifacts")
        if as_json:
            typer.echo(answer.text)
        else:
            show_files(answer.document["artifacts"], output.console())


def download(
    job_id: JobId,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of files; default: all, see `celeriac files ID`.", metavar="[NAME]..."),
    ] = None,
    *,
    to: Annotated[
        str, typer.Option("--to", "-o", help="Folder, or path of a single file; - is standard output.", metavar="PATH")
    ] = ".",
    step: Annotated[str | None, typer.Option(help="Only files of this step.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Download files of a job, verify their checksums, and print their paths. A broken download is resumed."""
    with gateway_at(url, as_json=as_json) as gateway, transfers(gateway, output.console(stderr=True)) as files:
        chosen = _chosen(gateway.artifacts(job_id), names or (), step)
        if to == STANDARD:
            if len(chosen) > 1:
                raise typer.BadParameter(f"Standard output takes a single file. Choose one: {_listed(chosen)}.")
            files.print_file(job_id, chosen[0])
            return
        targets = _targets(chosen, to)
        for target in targets if not force else ():
            if os.path.lexists(target):
                raise typer.BadParameter(f"{target} is there already. Overwrite it with --force, or use --to.")
        for file, target in zip(chosen, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                path = files.download(job_id, file, target, overwrite=force)
            except KeyboardInterrupt:
                typer.echo("Stopped. The same command goes on where this one ended.", err=True)
                raise typer.Exit(Exit.INTERRUPTED) from None
            fetched = {"path": str(path), "step": file.step, "artifact": file.artifact.model_dump()}
            typer.echo(json.dumps(fetched) if as_json else path)


def _chosen(files: Sequence[JobArtifact], names: Sequence[str], step: str | None) -> list[JobArtifact]:
    """Return the files of these names, all without names. Raises `typer.BadParameter`, `typer.Exit`."""
    if not files:
        typer.echo("The job has no files, or has not ended yet.", err=True)
        raise typer.Exit(Exit.NOT_SUCCEEDED)
    known = {file.name for file in files}
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"The job has no file {name!r}. {did_you_mean(name, known)}")
    chosen = [file for file in files if (not names or file.name in names) and step in (None, file.step)]
    if not chosen:
        steps = ", ".join(sorted({file.step for file in files if file.step})) or "none"
        raise typer.BadParameter(f"The step {step!r} has no such file. Steps with files: {output.printable(steps)}.")
    return chosen


def _listed(files: Sequence[JobArtifact]) -> str:
    said = (f"{file.name} --step {file.step}" if file.step else file.name for file in files)
    return output.printable(", ".join(said))


def _targets(files: Sequence[JobArtifact], to: str) -> list[Path]:
    """Return where the files go. Files of one name get that of their step in front. Raises `typer.BadParameter`.

    What a server calls a file leads nowhere else.
    """
    if len(files) == 1 and not to.endswith(os.sep) and not Path(to).is_dir():
        return [Path(to)]
    count = Counter(file.name for file in files)
    names = [_in_front(file.step, file.name) if count[file.name] > 1 else file.name for file in files]
    for name, times in Counter(names).items():
        if not re.fullmatch(NAME_PATTERN, name):
            raise typer.BadParameter(f"A file is called {name!r}, which is not a name for it here: use --to PATH.")
        if times > 1:
            raise typer.BadParameter(f"There are {times} files {name}. Choose one with --step: {_listed(files)}.")
    return [Path(to) / name for name in names]


def _in_front(step: str | None, name: str) -> str:
    return f"{re.sub('[^A-Za-z0-9._-]', '-', step or '')}-{name}"
