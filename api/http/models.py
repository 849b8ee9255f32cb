"""The bases of what comes in and goes out as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class In(BaseModel):
    """What a client sends: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Out(BaseModel):
    """What a client gets. Fields of an answer have no defaults: each is always there."""

    model_config = ConfigDict(frozen=True, extra="forbid")
