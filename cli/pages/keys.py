"""Print keys, and who the caller is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from cli.pages.output import moment, printable, show_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


def show_keys(found: Mapping[str, Any], out: Console) -> None:
    """Print a page of keys, one per line."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "standing", "expires", "last used", "scopes"):
        table.add_column(name, no_wrap=name == "id")
    for key in found["keys"]:
        used = moment(key["last_used_at"]) if key["last_used_at"] else "never"
        scopes = " ".join(key["scopes"])
        table.add_row(key["id"], printable(key["name"]), key["standing"], moment(key["expires_at"]), used, scopes)
    show_table(table, out)
    if token := found["next_page_token"]:
        typer.echo(f"more: --page-token {token}", err=True)


def show_key(key: Mapping[str, Any]) -> None:
    """Print one key, a line for each thing that is known of it."""
    for name in ("id", "name", "standing", "created_by", "created_at", "expires_at", "last_used_at", "revoked_at"):
        typer.echo(f"{name:<14} {printable(str(key[name] or '-'))}")
    _show_rights(key)


def show_me(me: Mapping[str, Any]) -> None:
    """Print who the caller is."""
    typer.echo(f"{'key':<14} {me['key_id'] or 'none is asked for'}")
    typer.echo(f"{'tenant':<14} {me['tenant']}")
    _show_rights(me)


def _show_rights(of: Mapping[str, Any]) -> None:
    typer.echo(f"{'scopes':<14} {' '.join(of['scopes']) or 'none'}")
    for name, restriction in of["restrictions"].items():
        if restriction is not None:
            typer.echo(f"{name:<14} {printable(str(restriction))}")
