"""Which of a service's secrets each of its programs gets: those that it uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.connections.settings import credentials_of, load_connections
from shared.contract.families import with_those_also_run
from shared.contract.installed import named_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_SIGNS_CALLBACKS = "CELERIAC_WEBHOOK_SECRET"
_OF_CLIENTS = "CELERIAC_API_KEY"
_SETTINGS = ("CELERIAC_", "CELERY_")


def for_gateway(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the credentials of connections: the gateway knows only their names.

    It has the secret of callbacks, to say at a submission whether there is one. Raises `DefinitionError` for a
    connections file that cannot be read.
    """
    return _without(environment, {_OF_CLIENTS, *_of_connections(environment)})


def for_beat(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program that reaches nothing but broker and ledger."""
    return _without(for_gateway(environment), {_SIGNS_CALLBACKS})


def for_worker(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker: its jobs use connections; only some of them sign callbacks."""
    families = with_those_also_run(named_in("WORKER_FAMILIES", environment))
    return _without(environment, {_OF_CLIENTS} if "callbacks" in families else {_OF_CLIENTS, _SIGNS_CALLBACKS})


def _of_connections(environment: Mapping[str, str]) -> set[str]:
    path = environment.get("CELERIAC_CONNECTIONS_FILE")
    connections = load_connections(Path(path) if path else None)
    named = {variable for info in connections.values() for variable in credentials_of(info)}
    return {variable for variable in named if not variable.startswith(_SETTINGS)}  # a setting is read by others, too


def _without(environment: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}
