"""Connections of a team's own kinds: what the file says of them. Their settings are checked where they are used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.texts import redact

VARIABLE_PATTERN = r"^[A-Z][A-Z0-9_]{0,127}$"
ENV = "_env"  # `token_env = "SHOP_TOKEN"` gives the setting `token` from a variable of the workers


class OwnInfo(BaseModel):
    """A connection whose kind an installed package declares."""

    # hide_input_in_errors: a password in the wrong field must not appear in a log
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: str = Field(description="The name of its entry point.")
    description: str = Field(default="", max_length=500, description="Description for people.")
    settings: Mapping[str, Any] = Field(repr=False, description="All else that the file says of it.")

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, table: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {name: table[name] for name in ("kind", "description") if name in table}
        return {**given, "settings": {name: value for name, value in table.items() if name not in given}}

    @model_validator(mode="after")
    def _without_credentials(self) -> Self:
        for name, value in self.settings.items():
            if name.endswith(ENV):
                if not (isinstance(value, str) and re.fullmatch(VARIABLE_PATTERN, value)):
                    raise ValueError(f"{name!r} must be the name of an environment variable, such as SHOP_TOKEN")
            elif redact(pair := f"{name}={value}") != pair:
                raise ValueError(
                    f"{name!r}: it contains credentials; put them into an environment variable and name that in "
                    f"'{name}{ENV}'"
                )
        return self
