"""The bases of what comes in and goes out as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SCHEMAS = "#/components/schemas/"
REFERENCE = SCHEMAS + "{model}"  # to a schema of the document


class In(BaseModel):
    """What a client sends: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Out(BaseModel):
    """What a client gets. Its fields have no defaults, so each is in every answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")
