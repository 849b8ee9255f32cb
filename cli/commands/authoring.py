"""Commands for authors of kinds. They need no service."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from celeriac import start
from cli.client.calls import Exit
from cli.pages import output
from cli.pages.kind import show_checked

if TYPE_CHECKING:
    from collections.abc import Iterator

Package = Annotated[str, typer.Argument(help="The package with contracts and tasks, such as acme.", metavar="PACKAGE")]
Source = Annotated[str, typer.Argument(help="A package, or a .json file that `celeriac contracts show` wrote.")]

contracts = typer.Typer(name="contracts", no_args_is_help=True, help="Describe contracts, and compare two versions.")


def check(package: Package) -> None:
    """Check the contracts and tasks of a package as gateway and workers do when they start."""
    with _authors():
        from cli.authors.checking import found_in  # noqa: PLC0415 - what it imports takes long; most commands need none

        found = found_in(package)
        show_checked(
            [(kind, found.body_of(kind), contract.spec.queue) for kind, contract in sorted(found.contracts.items())],
            output.console(),
        )
        for fault in found.faults:
            typer.echo(fault, err=True)
        if found.faults:
            raise typer.Exit(Exit.NOT_SUCCEEDED)


def new_kind(
    kind: Annotated[str, typer.Argument(help="Its name, family.verb_noun, such as acme.shout_text.")],
    *,
    folder: Annotated[Path, typer.Option(help="Folder of the project.", file_okay=False)] = Path(),
) -> None:
    """Write contract, task and test of a new kind, and a pyproject.toml if there is none."""
    with _authors():
        from cli.authors.scaffold import write_kind  # noqa: PLC0415 - the same

        for path in write_kind(kind, folder):
            typer.echo(str(path))
        typer.echo("Next: pip install --editable '.[dev]', then pytest, then celeriac up --reload", err=True)


@contracts.command("show")
def show_contracts(package: Package) -> None:
    """Print what the contracts of a package accept and return, as JSON to compare later versions with."""
    with _authors():
        from cli.authors.describing import described  # noqa: PLC0415 - the same

        typer.echo(json.dumps(described(package), indent=2, ensure_ascii=False))


@contracts.command("diff")
def diff_contracts(old: Source, new: Source) -> None:
    """Say what of NEW would break accepted jobs, schedules or clients of OLD. Optional fields may be added."""
    with _authors():
        from cli.authors.describing import described  # noqa: PLC0415 - the same
        from cli.authors.differences import differences  # noqa: PLC0415 - the same

        found = list(differences(described(old), described(new)))
        for difference in found:
            typer.echo(difference)
        if found:
            raise typer.Exit(Exit.NOT_SUCCEEDED)
        typer.echo("Jobs and clients of the old contracts work with the new ones.")


@contextmanager
def _authors() -> Iterator[None]:
    """Find packages in the current directory; print a definition's error and end with 2."""
    from shared.errors import DefinitionError  # noqa: PLC0415 - the same

    start.put_ours_first()
    start.put_cwd_on_path()
    try:
        yield
    except DefinitionError as wrong:
        typer.echo(str(wrong), err=True)
        raise typer.Exit(Exit.WRONG_REQUEST) from None
