"""Convert PostgreSQL errors to failures of jobs: transient or not, with a remedy, without credentials.

The codes are in appendix A of the PostgreSQL documentation ("PostgreSQL Error Codes").
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adbc_driver_manager import DataError, NotSupportedError, OperationalError, ProgrammingError
from adbc_driver_manager import dbapi as adbc

from shared.errors import TaskFailure, TransientFailure
from worker.reach.connections import scrubbed
from worker.runtime.scratch import comes_of_full_disk
from worker.tables.databases.failures import query_failed, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNAVAILABLE = ("08", "53", "57P", "58")  # connection, resources, operator intervention, system
_TRANSIENT_FOR_READERS = ("08", "40001", "40P01", "53300", "55P03", "57P01", "57P03")
_BUSY = ("40", "55P03", "57014")  # serialisation and deadlock, lock timeout, statement timeout
_REFUSED = (
    ("28", "database_access_denied", "Check the user and the password of the connection."),
    (
        "42501",
        "database_access_denied",
        "Grant the required privilege to the user of the connection, or use another table.",
    ),
    ("25006", "database_read_only", "Use a connection to the primary server whose transactions are not read-only."),
    ("23", "constraint_violated", "Remove the violating rows in a transform step."),
    ("22", "value_refused", "Cast or correct the values in a transform step."),
    ("3F", "schema_missing", "Create the schema, or use another one."),
)
_TEXT_CHARACTERS = 500
_NOISE = re.compile(r"\s*(Query was:.*|\.?\s*SQLSTATE: \w+\s*)$", re.DOTALL)
_DRIVER = re.compile(r"^[A-Z_]+: (\[libpq\] )?")
_SQLSTATE = re.compile(r"SQLSTATE: (\w{5})")
_LOST = re.compile("server closed the connection|could not receive data|no connection to the server")
_NOT_CONNECTED = "Failed to connect"
_FROM_NETWORK = re.compile(r"connection to server|could not translate host name|could not connect to server")
_LOGIN_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist"
    r"|database .* does not exist|permission denied for database|is not permitted to log in"
)


@contextmanager
def reading_failures(name: str, url: str) -> Iterator[None]:
    """Convert errors of reading the connection `name` at `url` to the failure of the job."""
    try:
        yield
    except (adbc.Error, OSError) as failed:  # OSError: Arrow raises it for errors while rows arrive
        if comes_of_full_disk(failed):  # while the rows are written to a file
            raise
        if _NOT_CONNECTED in str(failed):
            raise _not_connected(str(failed), name, url) from None
        message = scrubbed(str(failed), url)
        noted = _SQLSTATE.search(message)
        state = getattr(failed, "sqlstate", None) or (noted[1] if noted else "")
        lost = _LOST.search(message) is not None or (isinstance(failed, OperationalError) and not state)
        if lost or state.startswith(_TRANSIENT_FOR_READERS):
            raise unavailable(name, message) from None
        raise query_failed(name, message) from None


@contextmanager
def loading_failures(name: str, url: str) -> Iterator[None]:
    """Convert errors of loading into the connection `name` at `url` to the failure of the job."""
    try:
        yield
    except adbc.Error as error:
        raise _loading_failure(error, name, url) from None  # the error of the driver may contain the URL


def _loading_failure(error: adbc.Error, name: str, url: str) -> TaskFailure:
    """Return the failure of the job for an error of the driver. Without a SQLSTATE it is of the network or the data."""
    state = error.sqlstate or ""
    text = str(error)
    if _NOT_CONNECTED in text:
        return _not_connected(text, name, url)
    message = f"PostgreSQL reports for the connection {name!r}: {_readable(text, url)}"
    if state.startswith(_BUSY):
        return TransientFailure(
            "database_busy",
            message,
            remedy="Look for long transactions that hold locks on the table, or raise the timeouts of the connection.",
            sqlstate=state,
        )
    if not state and isinstance(error, DataError | NotSupportedError | ProgrammingError) and not _LOST.search(text):
        return TaskFailure("value_refused", message, remedy="Cast or correct the values in a transform step.")
    if state.startswith(_UNAVAILABLE) or not state:
        return TransientFailure(
            "database_unavailable",
            message,
            remedy="Check that the server is running and has free connections and disk space.",
            sqlstate=state,
        )
    for prefix, code, remedy in _REFUSED:
        if state.startswith(prefix):
            return TaskFailure(code, message, remedy=remedy, sqlstate=state)
    return TaskFailure("database_refused", message, remedy="Check the definition of the table.", sqlstate=state)


def _not_connected(text: str, name: str, url: str) -> TaskFailure:
    if not _FROM_NETWORK.search(text):  # libpq quotes what it cannot parse, which may be part of the password
        return TaskFailure(
            "connection_misconfigured",
            f"The URL of the connection {name!r} is not a valid PostgreSQL URL.",
            remedy="Percent-encode special characters in user and password; check host, port and parameters.",
        )
    message = f"No connection to {name!r}: {_readable(text, url)}"
    if _LOGIN_REFUSED.search(text):
        return TaskFailure("database_access_denied", message, remedy="Check user, password and database name.")
    return TransientFailure("database_unavailable", message, remedy="Check that the server is up and reachable.")


def _readable(text: str, url: str) -> str:
    """Return the message of the server in one line, without text of the driver and credentials."""
    stripped = _DRIVER.sub("", _NOISE.sub("", text))
    one_line = " ".join(stripped.replace("[PGRES_FATAL_ERROR]", "").split())
    return scrubbed(one_line, url)[:_TEXT_CHARACTERS]
