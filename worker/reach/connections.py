"""Connections with the secrets of a worker's environment, which are read when they are used.

Secrets never appear in a repr, message or log.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import fsspec

from shared.connections.settings import (
    Connections,
    HttpInfo,
    ServerDatabaseInfo,
    SqlInfo,
    StoreInfo,
    problem_with,
)
from shared.errors import TaskFailure
from shared.texts import redact
from worker.runtime.bodies.connections import configured, misconfigured, secret_of, unknown_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.contract.names import ConnectionGroup

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class SqlConnection:
    """A database: what the connections file says of it and, for one on a server, its URL with the credentials."""

    name: str
    info: SqlInfo
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class StoreConnection:
    """A folder or a bucket: an fsspec file system and the path of its root."""

    name: str
    fs: Any = field(repr=False)
    root: str

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine."""
        protocol = self.fs.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def locate(self, path: str) -> str:
        """Return the full path of `path` below the root.

        Raises `TaskFailure` (``path_outside_store``) if it leaves the root, also through a symbolic link.
        """
        full = f"{self.root.rstrip('/')}/{path}"
        inside = not any(part in {"", ".", ".."} for part in path.split("/")) and "\\" not in path
        if inside and self.is_local:
            root = Path(self.root).resolve()
            inside = Path(full).resolve().is_relative_to(root)
        if not inside:
            raise TaskFailure(
                "path_outside_store",
                f"The path {path!r} leaves the store {self.name!r}.",
                remedy="Use a path below the store's root, without '..' or links that lead out of it.",
            )
        return full


@dataclass(frozen=True, slots=True)
class HttpConnection:
    """An HTTP origin and the secret headers that are sent only to it."""

    name: str
    origin: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def host(self) -> str:
        """The host name of the origin, in lower case."""
        return urlsplit(self.origin).hostname or ""

    def covers(self, url: str) -> bool:
        """Return whether `url` has this origin: the same scheme, host and port."""
        return _origin(url) == _origin(self.origin)

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the headers for a request to `url`: none if it has another origin."""
        return dict(self.headers) if self.covers(url) else {}


@dataclass(frozen=True)
class WorkerConnections:
    """The configured connections with the secrets of `environment`."""

    configured: Connections
    environment: Mapping[str, str] = field(repr=False)

    def sql(self, name: str) -> SqlConnection:
        """Return the SQL connection `name`. Raises `TaskFailure` if it is unknown or not set up."""
        info: SqlInfo = self._find(name, "sql")
        if not isinstance(info, ServerDatabaseInfo):
            return SqlConnection(name, info)
        url = info.url or secret_of(name, info.url_env or "", self.environment)
        if urlsplit(url).scheme not in info.schemes:
            raise misconfigured(name, f"{info.url_env} is not a {info.schemes[0]}:// URL")
        return SqlConnection(name, info, url)

    def store(self, name: str) -> StoreConnection:
        """Return the store `name`. Raises `TaskFailure` if it is unknown or not set up."""
        info = self._find(name, "store")
        assert isinstance(info, StoreInfo)  # noqa: S101 - _find has checked the kind
        options = self._secret_object(name, info.storage_options_env)
        try:
            fs, root = fsspec.core.url_to_fs(info.url, **options)
        except (ImportError, ValueError):
            scheme = info.url.partition("://")[0]
            raise misconfigured(
                name, f"fsspec has no file system {scheme!r}; install its driver on the workers (s3: s3fs)"
            ) from None
        return StoreConnection(name, fs, str(root))

    def http(self, name: str) -> HttpConnection:
        """Return the HTTP connection `name`. Raises `TaskFailure` if it is unknown or not set up."""
        info = self._find(name, "http")
        assert isinstance(info, HttpInfo)  # noqa: S101 - _find has checked the kind
        headers = self._secret_object(name, info.headers_env)
        if not all(isinstance(value, str) for value in headers.values()):
            raise misconfigured(name, f"a header in {info.headers_env} is not a string")
        return HttpConnection(name, info.origin, headers)

    def _find(self, name: str, group: ConnectionGroup) -> Any:
        problem = problem_with(name, group, self.configured)
        if problem is not None:
            raise unknown_connection(problem)
        return self.configured[name]

    def _secret_object(self, name: str, variable: str | None) -> dict[str, Any]:
        if variable is None:
            return {}
        try:
            value = json.loads(secret_of(name, variable, self.environment))
        except json.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise misconfigured(name, f"{variable} is not a JSON object")
        return value


def scrubbed(text: str, url: str) -> str:
    """Return `text` without `url` and its password, wherever a driver may have put them."""
    password = urlsplit(url).password
    for secret in (url, password, unquote(password) if password else None):
        if secret:
            text = text.replace(secret, "***")
    return redact(text)


@lru_cache
def connections() -> WorkerConnections:
    """Return the connections of this worker: its `CELERIAC_CONNECTIONS_FILE` and its environment."""
    return WorkerConnections(configured(), os.environ)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)
