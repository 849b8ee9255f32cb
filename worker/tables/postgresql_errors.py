"""What a failure of PostgreSQL means for a job: whether it can pass, and what to do; never with a credential.

Codes are those of PostgreSQL's documentation, appendix A ("PostgreSQL Error Codes").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shared.errors import TaskFailure, TransientFailure

if TYPE_CHECKING:
    from adbc_driver_manager import dbapi as adbc

    from worker.reach.connections import PostgresqlConnection

_UNAVAILABLE = ("08", "53", "57P", "58")  # connection, resources, operator intervention, system
_BUSY = ("40", "55P03", "57014")  # serialisation and deadlock, lock timeout, statement timeout
_REFUSED = (
    ("28", "database_access_denied", "Check the user and the password of the connection."),
    ("42501", "database_access_denied", "Grant the connection's user the right, or use another table."),
    ("25006", "database_read_only", "Use a connection to the primary server, with a writable default."),
    ("23", "constraint_violated", "Remove the rows that violate it in a transform step."),
    ("22", "value_refused", "Cast or correct the values in a transform step."),
    ("3F", "schema_missing", "Create the schema, or name another one."),
)
_TEXT_CHARACTERS = 500
_NOISE = re.compile(r"\s*(Query was:.*|\.?\s*SQLSTATE: \w+\s*)$", re.DOTALL)
_DRIVER = re.compile(r"^[A-Z_]+: (\[libpq\] )?")
_FROM_NETWORK = re.compile(r"connection to server|could not translate host name|could not connect to server")
_LOGIN_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist"
    r"|database .* does not exist|permission denied for database|is not permitted to log in"
)


def failure_of(error: adbc.Error, connection: PostgresqlConnection) -> TaskFailure:
    """Return the job's failure for an error of the driver. Without a SQLSTATE it came from connecting or the wire."""
    state = error.sqlstate or ""
    text = str(error)
    if "Failed to connect" in text:
        return _not_connected(text, connection)
    message = f"PostgreSQL says of the connection {connection.name!r}: {_readable(text, connection)}"
    if state.startswith(_BUSY):
        return TransientFailure(
            "database_busy",
            message,
            remedy="Another transaction holds a lock, or the server is slow.",
            sqlstate=state,
        )
    if state.startswith(_UNAVAILABLE) or not state:
        return TransientFailure("database_unavailable", message, remedy="Check the server.", sqlstate=state)
    for prefix, code, remedy in _REFUSED:
        if state.startswith(prefix):
            return TaskFailure(code, message, remedy=remedy, sqlstate=state)
    return TaskFailure("database_refused", message, remedy="Check the table's definition.", sqlstate=state)


def _not_connected(text: str, connection: PostgresqlConnection) -> TaskFailure:
    if not _FROM_NETWORK.search(text):  # libpq quotes what it cannot parse: part of it may be the password
        return TaskFailure(
            "connection_misconfigured",
            f"The URL of the connection {connection.name!r} is not one that PostgreSQL's library understands.",
            remedy="Percent-encode special characters in user and password; check host, port and parameters.",
        )
    message = f"No connection to {connection.name!r}: {_readable(text, connection)}"
    if _LOGIN_REFUSED.search(text):
        return TaskFailure("database_access_denied", message, remedy="Check user, password and database name.")
    return TransientFailure("database_unavailable", message, remedy="Check that the server is up and reachable.")


def _readable(text: str, connection: PostgresqlConnection) -> str:
    """Return the server's own words, in one line, without driver noise and credentials."""
    stripped = _DRIVER.sub("", _NOISE.sub("", text))
    one_line = " ".join(stripped.replace("[PGRES_FATAL_ERROR]", "").split())
    return connection.scrub(one_line)[:_TEXT_CHARACTERS]
