"""The command line against a gateway that runs, in this process."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from cli.app import app


class Celeriac:
    """Runs commands."""

    def __init__(self, url: str) -> None:
        self._environment = {"CELERIAC_URL": url}

    def __call__(self, *words: str) -> Result:
        """Run a command and return what it wrote and its exit code."""
        return CliRunner(env=self._environment).invoke(app, words)

    def ok(self, *words: str) -> str:
        """Run a command that succeeds and return what it printed."""
        done = self(*words)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def json(self, *words: str) -> Any:
        """Run a command with --json and return its document."""
        return json.loads(self(*words, "--json").stdout)
