"""Base of models that a client sends: strict, without extra fields."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Base of models that a client sends: strict, without extra fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return the same object, which nobody changes: Pydantic copies a default for every job that it is used in."""
        return self
