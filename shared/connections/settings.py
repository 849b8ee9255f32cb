"""Connections: the external systems that a job may name, listed in one TOML file for gateway and workers.

    [warehouse]
    kind = "postgresql"
    url_env = "WAREHOUSE_URL"   # the *name* of a variable in the workers' environment

The file has no credentials: it names the variables that hold them, and only workers read those. So the gateway
can refuse a job that names an unknown connection, and never holds a password.
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from shared.connections.own import ENV, VARIABLE_PATTERN, OwnInfo
from shared.contract.installed import connection_kinds
from shared.contract.names import Access, ConnectionGroup, ConnectionName, NamesConnection, OnlyRead
from shared.errors import DefinitionError
from shared.texts import redact

VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

_HIDE_URL = "it contains credentials; put the URL into an environment variable and name that in 'url_env'"


class _Connection(BaseModel):
    # hide_input_in_errors: a password in the wrong field must not appear in a log
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    description: str = Field(default="", max_length=500, description="Description for people.")


class _Database(_Connection):
    lock_timeout_s: Seconds = Field(default=30.0, description="Maximum wait for a lock, in seconds.")


class FileDatabaseInfo(_Database):
    """A database that is a file."""

    path: Path = Field(description="The file; relative to the folder of the connections file.")


class ServerDatabaseInfo(_Database):
    """A database on a server, which a URL names."""

    schemes: ClassVar[tuple[str, ...]]
    """How its URL may begin; the first is the one to recommend."""

    url: str | None = Field(
        default=None,
        description="Such as `postgresql://user@host/database`, no password: for peer or certificate login.",
    )
    url_env: VariableName | None = Field(default=None, description="Variable with the URL and its password.")
    connect_timeout_s: Seconds = Field(default=10.0, description="Maximum duration of connecting, in seconds.")
    statement_timeout_s: Seconds = Field(default=1_800.0, description="Maximum duration of a statement, in seconds.")

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give either 'url_env' or 'url' (without a password)")
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in self.schemes:
                raise ValueError(f"'url' must begin with {self.schemes[0]}://")
            if parts.password is not None or redact(parts.query) != parts.query:
                raise ValueError(f"'url': {_HIDE_URL}")
        return self


class PostgresqlInfo(ServerDatabaseInfo):
    """A PostgreSQL database."""

    schemes = ("postgresql", "postgres")

    kind: Literal["postgresql"] = Field(description="Discriminator.")


class SqliteInfo(FileDatabaseInfo):
    """A SQLite file."""

    kind: Literal["sqlite"] = Field(description="Discriminator.")


class DuckdbInfo(FileDatabaseInfo):
    """A DuckDB file. Only one process at a time can write it."""

    kind: Literal["duckdb"] = Field(description="Discriminator.")


class StoreInfo(_Connection):
    """A folder or a bucket: any fsspec URL."""

    kind: Literal["store"] = Field(description="Discriminator.")
    url: str = Field(
        min_length=1,
        description="Its root: a folder (relative to the connections file), `file://`, `s3://bucket/x`.",
    )
    storage_options_env: VariableName | None = Field(
        default=None, description="Variable with a JSON object of fsspec's storage options, such as keys."
    )

    @model_validator(mode="after")
    def _without_credentials(self) -> Self:
        if redact(self.url) != self.url:
            raise ValueError("'url': it contains credentials; put them into 'storage_options_env'")
        return self


class HttpInfo(_Connection):
    """An HTTP server whose requests need secret headers."""

    kind: Literal["http"] = Field(description="Discriminator.")
    origin: str = Field(description="Scheme, host and port, such as `https://api.example.com`.")
    headers_env: VariableName | None = Field(
        default=None, description="Variable with a JSON object of headers, which are sent to this origin only."
    )

    @model_validator(mode="after")
    def _is_origin(self) -> Self:
        parts = urlsplit(self.origin)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("'origin' must be an absolute http:// or https:// URL with a host")
        if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("'origin' must be scheme, host and port only; put secrets into 'headers_env'")
        return self


SqlInfo = PostgresqlInfo | SqliteInfo | DuckdbInfo
"""Every engine that there is; `worker.tables.databases.registry` has an object for each."""

ConnectionInfo = Annotated[SqlInfo | StoreInfo | HttpInfo, Field(discriminator="kind")]
Connections = Mapping[str, ConnectionInfo | OwnInfo]
FieldPath = tuple[str | int, ...]


def _kinds(*infos: type[_Connection]) -> frozenset[str]:
    return frozenset(kind for info in infos for kind in typing.get_args(info.model_fields["kind"].annotation))


KINDS_OF: Mapping[str, frozenset[str]] = {
    "sql": _kinds(*typing.get_args(SqlInfo)),
    "store": _kinds(StoreInfo),
    "http": _kinds(HttpInfo),
}
_BUILT_IN = frozenset(typing.get_args(ConnectionGroup)).union(*KINDS_OF.values())
_FILE: TypeAdapter[dict[str, ConnectionInfo]] = TypeAdapter(
    dict[ConnectionName, ConnectionInfo], config=ConfigDict(hide_input_in_errors=True)
)
_OWN: TypeAdapter[dict[str, OwnInfo]] = TypeAdapter(
    dict[ConnectionName, OwnInfo], config=ConfigDict(hide_input_in_errors=True)
)


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """A field of a contract that names an unknown connection, or one of the wrong kind."""

    path: FieldPath
    message: str


def load_connections(path: Path | None) -> Connections:
    """Return the connections of the TOML file at `path`, by name; empty without a file.

    Relative paths in it start at its folder. Raises `DefinitionError`, which says what to fix but shows no value.
    """
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as unreadable:
        raise DefinitionError(
            f"CELERIAC_CONNECTIONS_FILE: {path} cannot be read: {unreadable.strerror}. "
            "Create the file (see examples/connections.toml) or unset the variable."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise DefinitionError(f"{path} is not TOML: {broken}. See examples/connections.toml.") from None
    kinds = _own_kinds()
    own = {name for name, table in content.items() if isinstance(table, dict) and table.get("kind") in kinds}
    try:
        connections = _FILE.validate_python({name: table for name, table in content.items() if name not in own})
        others = _OWN.validate_python({name: content[name] for name in own})
    except ValidationError as invalid:
        raise DefinitionError(
            f"{path} is not a connections file: {_hints(invalid)}. See examples/connections.toml."
        ) from None
    return {**{name: _anchored(info, path.resolve().parent) for name, info in connections.items()}, **others}


def credentials_of(info: ConnectionInfo | OwnInfo) -> list[str]:
    """Return the variables of the workers' environment that a connection names."""
    fields = info.settings if isinstance(info, OwnInfo) else dict(info)
    return [str(value) for name, value in fields.items() if name.endswith(ENV) and value is not None]


def _own_kinds() -> Collection[str]:
    if taken := _BUILT_IN & connection_kinds().keys():
        raise DefinitionError(
            f"An installed package declares the kind of connection {min(taken)!r}, which the service has. Rename it."
        )
    return connection_kinds().keys()


def names_of(connections: Connections, group: str) -> list[str]:
    """Return the sorted names of the connections that can serve as `group`, or as a team's own kind."""
    return sorted(name for name, info in connections.items() if _serves(info, group))


def _serves(info: ConnectionInfo | OwnInfo, group: str) -> bool:
    return info.kind in KINDS_OF.get(group, {group})


def problem_with(name: str, group: str, connections: Connections) -> str | None:
    """Return why `name` cannot serve as `group`, with the names that can; empty if it can."""
    info = connections.get(name)
    if info is not None and _serves(info, group):
        return None
    known = ", ".join(names_of(connections, group)) or "none"
    built_in = {"sql": "a SQL connection", "store": "a store", "http": "an HTTP connection"}
    article = built_in.get(group, f"a connection of kind {group!r}")
    what = "is not configured" if info is None else f"is of kind {info.kind!r}, but {article} is needed here"
    return f"The connection {name!r} {what}. Configured: {known}."


class NamedConnection(NamedTuple):
    """A connection that a contract's instance names, and what its job does with it."""

    path: FieldPath
    name: str
    group: str
    access: Access


def check_connections(model: BaseModel, connections: Connections) -> list[ConnectionProblem]:
    """Return the fields in `model`, a contract's instance, whose connection is unknown or of the wrong kind."""
    return [
        ConnectionProblem(named.path, message)
        for named in connections_in(model)
        if (message := problem_with(named.name, named.group, connections)) is not None
    ]


def connections_in(value: Any, path: FieldPath = (), *, only_read: bool = False) -> Iterator[NamedConnection]:
    """Yield every connection named in a value, also in nested models."""
    if isinstance(value, BaseModel):
        for name, marker, is_read in _fields_to_see(type(value)):
            inner = getattr(value, name)
            if inner is None:
                continue
            only = only_read or is_read
            if marker is not None:
                access: Access = "read" if only else marker.access
                for place, text in _texts(inner, (*path, name)):
                    yield NamedConnection(place, text, marker.group, access)
            else:
                yield from connections_in(inner, (*path, name), only_read=only)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from connections_in(inner, (*path, key), only_read=only_read)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from connections_in(inner, (*path, index), only_read=only_read)


@cache  # used by every submission
def _fields_to_see(model: type[BaseModel]) -> Sequence[tuple[str, NamesConnection | None, bool]]:
    """Return the marked fields of a model with their markers, and those with a model inside that may have such.

    The last of each says whether what the field names is only read.
    """
    found = [
        (name, field, _marker(field.metadata) or _marker_in(field.annotation))
        for name, field in model.model_fields.items()
    ]
    return [
        (name, marker, any(isinstance(item, OnlyRead) for item in field.metadata))
        for name, field, marker in found
        if marker or _may_name(field.annotation, set())
    ]


def _may_name(annotation: Any, seen: set[Any]) -> bool:
    """Return whether a model in a value of this type may name a connection."""
    if annotation is Any or isinstance(annotation, typing.TypeVar):
        return True
    value = getattr(annotation, "__value__", annotation)  # of an alias
    is_class = isinstance(value, type)
    if is_class and not issubclass(value, BaseModel):
        return issubclass(value, (Mapping, list, tuple))  # of whatever
    if is_class or value is not annotation:
        if annotation in seen:
            return False  # it is being looked at
        seen.add(annotation)
    if is_class:
        return any(
            _marker(field.metadata) or _marker_in(field.annotation) or _may_name(field.annotation, seen)
            for field in value.model_fields.values()
        )
    return any(_may_name(part, seen) for part in typing.get_args(value))


def _texts(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))


def _marker(metadata: typing.Iterable[Any]) -> NamesConnection | None:
    return next((item for item in metadata if isinstance(item, NamesConnection)), None)


def _marker_in(annotation: Any) -> NamesConnection | None:
    """Return the marker inside a union or a list; Pydantic leaves it in the annotation there."""
    if found := _marker(getattr(annotation, "__metadata__", ())):
        return found
    return next((found for part in typing.get_args(annotation) if (found := _marker_in(part))), None)


def _anchored(info: ConnectionInfo, folder: Path) -> ConnectionInfo:
    if isinstance(info, FileDatabaseInfo):
        return info.model_copy(update={"path": folder / info.path})
    if isinstance(info, StoreInfo) and "://" not in info.url and "::" not in info.url:
        return info.model_copy(update={"url": str(folder / info.url)})
    return info


def _hints(invalid: ValidationError) -> str:
    """Describe the errors without values: one may be a password in the wrong field."""
    hints = []
    for error in invalid.errors(include_input=False, include_url=False, include_context=False):
        name, *inner = error["loc"] or ("file",)
        where = ".".join(str(part) for part in (name, *inner[1:]))  # inner[0] is Pydantic's: the kind or "[key]"
        hints.append(f"{where}: {error['msg']}")
    return "; ".join(hints)
