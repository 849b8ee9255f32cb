"""A connection of a team's own kind: its settings, with the secrets of this worker's environment, read when it is used.

Secrets never appear in a repr, message or log.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from shared.connections.own import ENV, OwnInfo
from shared.connections.settings import Connections, load_connections
from shared.contract.checking.journey import problems_in
from shared.contract.installed import connection_kinds
from shared.contract.spelling import did_you_mean
from shared.errors import TaskFailure
from worker.settings import worker_settings

SettingsT = TypeVar("SettingsT", bound=BaseModel)


@lru_cache
def configured() -> Connections:
    """Return the connections of this worker's `CELERIAC_CONNECTIONS_FILE`, without secrets."""
    return load_connections(worker_settings().connections_file)


def own_connection(
    name: str, settings: type[SettingsT], known: Connections, environment: Mapping[str, str] = os.environ
) -> SettingsT:
    """Return the settings of the connection `name`.

    Raises `TaskFailure` if it is unknown, of a kind that is declared with another class, or not set up.
    """
    info = known.get(name)
    if not isinstance(info, OwnInfo):
        own = ", ".join(sorted(each for each, other in known.items() if isinstance(other, OwnInfo))) or "none"
        what = "is not configured" if info is None else f"is of the kind {info.kind!r}, which the service has"
        raise unknown_connection(f"The connection {name!r} {what}. Configured, of kinds that packages declare: {own}.")
    if (declared := _declared(name, info.kind)) is not settings:
        raise TaskFailure(
            "wrong_connection",
            f"The connection {name!r} is of the kind {info.kind!r}, whose class is {declared!r}, not {settings!r}.",
            remedy="Fix the task: ask for the class that is declared for the kind of the parameter.",
        )
    values = dict(_values(name, settings, info, environment))
    try:
        return settings.model_validate(values)
    except ValidationError as invalid:
        problems = problems_in(invalid)
        for variable in (value for key, value in info.settings.items() if key.endswith(ENV)):
            problems = problems.replace(environment[variable], "***")  # a validator of the author's may quote it
        raise misconfigured(name, problems) from None


def unknown_connection(problem: str) -> TaskFailure:
    """Return the failure of a name that is not that of a connection as it is needed."""
    return TaskFailure(
        "unknown_connection",
        problem,
        remedy="Use a known name, or add it to CELERIAC_CONNECTIONS_FILE of gateway and workers.",
    )


def misconfigured(name: str, what: str) -> TaskFailure:
    """Return the failure of a connection whose settings or secrets are wrong."""
    return TaskFailure(
        "connection_misconfigured",
        f"The connection {name!r} cannot be used: {what}.",
        remedy="Fix it in the connections file or in the environment of the workers, and restart them.",
    )


def secret_of(name: str, variable: str, environment: Mapping[str, str]) -> str:
    """Return the value of the variable that a connection names. Raises `TaskFailure` if it is not set."""
    value = environment.get(variable, "")
    if not value:
        raise misconfigured(name, f"{variable} is not set")
    return value


def _declared(name: str, kind: str) -> Any:
    point = connection_kinds()[kind]
    try:
        return point.load()
    except (ImportError, AttributeError) as missing:
        raise misconfigured(name, f"{point.value}, the class of its kind, cannot be imported: {missing}") from missing


def _values(
    name: str, settings: type[BaseModel], info: OwnInfo, environment: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    keys = {field + ENV * _is_secret(settings, field): field for field in settings.model_fields}
    for key, value in info.settings.items():
        if key not in keys:
            raise misconfigured(name, f"{settings.__name__} takes no {key!r}. {did_you_mean(key, keys)}")
        yield keys[key], secret_of(name, value, environment) if key.endswith(ENV) else value


def _is_secret(settings: type[BaseModel], field: str) -> bool:
    annotation = settings.model_fields[field].annotation
    return bool({SecretStr, SecretBytes} & {annotation, *typing.get_args(annotation)})
