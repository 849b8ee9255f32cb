"""Failures of reading that are common to all engines, without credentials."""

from __future__ import annotations

from shared.errors import TaskFailure, TransientFailure
from shared.texts import redact

_TEXT_CHARACTERS = 500


def query_failed(name: str, message: str) -> TaskFailure:
    """Return the failure for a query that the database of the connection `name` refused."""
    return TaskFailure(
        "query_failed",
        f"The database {name!r} refused the query: {redact(message)[:_TEXT_CHARACTERS]}",
        remedy="Check 'table' or 'query' against the database, and the permissions of its account.",
    )


def unavailable(name: str, message: str) -> TransientFailure:
    """Return the failure for a database that cannot be read now."""
    return TransientFailure(
        "database_unavailable",
        f"The database {name!r} cannot be read: {redact(message)[:_TEXT_CHARACTERS]}",
        remedy="Check that the database is up and not locked; the job is retried.",
    )
