"""The connections: the file is valid, variables are set, hosts resolve and listen, folders are there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from cli.doctor.findings import Finding, fail, ok, said, warn
from cli.doctor.servers import TIMEOUT_S
from shared.connections.own import OwnInfo
from shared.connections.settings import (
    ConnectionInfo,
    FileDatabaseInfo,
    HttpInfo,
    ServerDatabaseInfo,
    StoreInfo,
    credentials_of,
    load_connections,
)
from shared.errors import DefinitionError
from shared.texts import redact

_PORTS = {"postgresql": 5432, "postgres": 5432, "http": 80, "https": 443}
_WORKERS_NEED = "The workers need it; if only they have it, this is as it should be."


def of_connections(path: Path | None) -> Iterator[Finding]:
    """Yield a finding for each connection, without logging in anywhere."""
    if path is None:
        yield ok("connections", "none: CELERIAC_CONNECTIONS_FILE is not set")
        return
    try:
        connections = load_connections(path)
    except DefinitionError as wrong:
        yield fail("connections", str(wrong), "Gateway and workers would not start with it.")
        return
    if not connections:
        yield ok("connections", f"{path} has none")
    for name, info in connections.items():
        yield _of_one(f"connection {name}", info)


def _of_one(check: str, info: ConnectionInfo | OwnInfo) -> Finding:
    if unset := [variable for variable in credentials_of(info) if not os.environ.get(variable)]:
        return warn(check, f"{', '.join(unset)} is not set in this environment.", _WORKERS_NEED)
    match info:
        case FileDatabaseInfo():
            return _of_file(check, info)
        case ServerDatabaseInfo():
            return _of_server(check, info)
        case HttpInfo():
            return _of_http(check, info)
        case StoreInfo():
            return _of_store(check, info)
        case _:
            return ok(check, f"of the kind {info.kind}, which a package declares")


def _of_file(check: str, info: FileDatabaseInfo) -> Finding:
    if not info.path.parent.is_dir():
        return fail(check, f"{info.path.parent} is not a folder.", "Create it, or fix the path in the file.")
    return ok(check, f"file {info.path}" + ("" if info.path.exists() else ", not there yet"))


def _of_server(check: str, info: ServerDatabaseInfo) -> Finding:
    url = info.url or os.environ[info.url_env or ""]
    if urlsplit(url).scheme not in info.schemes:
        return fail(check, f"{info.url_env} is not a {info.schemes[0]}:// URL.", "Correct the variable.")
    return _reached(check, url)


def _of_http(check: str, info: HttpInfo) -> Finding:
    if not _is_object(os.environ.get(info.headers_env or "", "{}")):
        return fail(check, f"{info.headers_env} is not a JSON object.", "Correct the variable.")
    return _reached(check, info.origin)


def _of_store(check: str, info: StoreInfo) -> Finding:
    options = os.environ.get(info.storage_options_env or "", "{}")
    if not _is_object(options):
        return fail(check, f"{info.storage_options_env} is not a JSON object.", "Correct the variable.")
    try:
        fs, root = fsspec.core.url_to_fs(info.url, **json.loads(options))
    except (ImportError, ValueError) as missing:
        return fail(check, f"{redact(info.url)}: {said(missing)}.", "Fix the URL, or install its driver (s3: s3fs).")
    if "file" in fs.protocol and not Path(root).is_dir():
        return fail(check, f"{root} is not a folder.", "Create it, or fix the URL in the file.")
    return ok(check, f"store {redact(info.url)}")


def _reached(check: str, url: str) -> Finding:
    """Return whether something listens where a URL points, which is not shown beyond host and port."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if not host:
        return ok(check, "by a socket of this machine")
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return ok(check, f"{host}:{port} listens")
    except socket.gaierror:
        return fail(check, f"The host {host} is not known here.", "Correct it, or fix the name service.")
    except OSError as failure:
        return fail(
            check,
            f"{host}:{port} does not answer: {failure.strerror or said(failure)}.",
            "Start it, or correct host and port.",
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
