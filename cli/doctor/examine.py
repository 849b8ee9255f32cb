"""All checks, in the order in which their parts depend on each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cli.doctor.connections import of_connections
from cli.doctor.findings import Finding, fail
from cli.doctor.servers import of_broker, of_ledger
from cli.doctor.service import of_gateway, of_workers
from cli.doctor.setup import find_setup, of_settings, wrong_settings
from cli.doctor.store import of_store
from shared.errors import DefinitionError
from shared.texts import names_secret

_FOLDERS = ("PWD", "OLDPWD")  # of the shell, and no passwords
_SHORTEST_SECRET = 4  # a shorter one is a part of many words


def examine(url: str | None, folder: Path) -> Iterator[Finding]:
    """Yield a finding for each part of the set-up, without any secret in it."""
    return _scrubbed(_all(url, folder))


def _all(url: str | None, folder: Path) -> Iterator[Finding]:
    try:
        setup = find_setup(url, folder)
    except DefinitionError as refused:
        yield from wrong_settings(refused)
        return
    yield from of_settings(setup)
    ledger = list(of_ledger(setup.settings))
    yield from ledger
    answers = len(ledger) > 1  # else it is its refusal
    yield from of_broker(setup.settings, ledger_answers=answers)
    yield from of_store(setup.settings)
    yield from of_connections(setup.settings.connections_file)
    gateway = of_gateway(setup.url)
    yield from gateway.findings
    if answers:
        yield from of_workers(setup.settings, gateway)
    else:
        yield fail("workers", "The ledger, which lists them, does not answer.", "See the line of the ledger.")


def _scrubbed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Take the secrets of this environment out of what drivers and servers have said."""
    secrets = {secret for name, value in os.environ.items() for secret in _secrets_in(name, value)}
    for finding in findings:
        message, remedy = finding.message, finding.remedy
        for secret in sorted(secrets, key=len, reverse=True):
            message, remedy = message.replace(secret, "***"), remedy.replace(secret, "***")
        yield replace(finding, message=message, remedy=remedy)


def _secrets_in(name: str, value: str) -> Iterator[str]:
    found = [value] if names_secret(name) and name not in _FOLDERS else []
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:  # not a URL, such as one with half an address in brackets
        password = None
    found += [password, unquote(password)] if password else []
    yield from (secret for secret in found if len(secret) >= _SHORTEST_SECRET)
