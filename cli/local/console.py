"""Print the lines of several programs on one console."""

from __future__ import annotations

import sys

import typer

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta")
_WIDTH = 14


class Console:
    """Prints lines with the name of their program; stops printing when the output is closed."""

    def __init__(self) -> None:
        self._colours: dict[str, str] = {}
        self._closed = False

    def say(self, name: str, line: str) -> None:
        """Print one line of `name`."""
        if self._closed:
            return
        if name != "up" and name not in self._colours:
            self._colours[name] = _COLOURS[len(self._colours) % len(_COLOURS)]
        prefix = typer.style(f"{name:<{_WIDTH}}", fg=self._colours.get(name), bold=name == "up")
        try:
            typer.echo(f"{prefix} {line}")
        except OSError:  # a closed pipe or terminal
            self._closed = True
            sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123 - so that the interpreter's last flush passes
