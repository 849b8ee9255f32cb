"""Print what the doctor has found: a line for each check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from cli.pages.output import printable

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def show_finding(check: str, outcome: str, words: str, out: Console) -> None:
    """Print one line."""
    line = Text.assemble((f"{outcome:<6}", _STYLES[outcome]), f"{check:<20}  ", printable(words.replace("\n", " ")))
    out.print(line)
