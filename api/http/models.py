"""The bases of what comes in and goes out as JSON, and its times."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

SCHEMAS = "#/components/schemas/"
REFERENCE = SCHEMAS + "{model}"  # to a schema of the document


class In(BaseModel):
    """What a client sends: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Out(BaseModel):
    """What a client gets. Its fields have no defaults, so each is in every answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def at(ms: int) -> datetime:
    """Return the time `ms` milliseconds after 1970, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def at_or_none(ms: int | None) -> datetime | None:
    """Return the time `ms` milliseconds after 1970, in UTC; None for None."""
    return None if ms is None else at(ms)
