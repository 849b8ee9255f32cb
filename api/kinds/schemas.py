"""What the catalogue says of its kinds."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.http.models import Out
from shared.contract.definition import KIND_PATTERN, Limits, Retry


class JobKindSummary(Out):
    """A kind in the catalogue."""

    kind: str = Field(pattern=KIND_PATTERN, description="Its name.", examples=["etl.extract_data"])
    family: str = Field(description="Its family: whose workers run it.")
    summary: str = Field(description="What it does, in a line.")
    queue: str = Field(description="Its queue.")
    limits: Limits = Field(description="How long one attempt may take.")
    retry: Retry = Field(description="How transient failures are retried.")
    is_workflow: bool = Field(description="Whether it runs as several steps.")


class JobKind(JobKindSummary):
    """A kind with its schemas."""

    description: str = Field(description="What it does, at length; may be empty.")
    max_crashes: int = Field(ge=1, description="Workers it may take down before it is quarantined.")
    params_schema: dict[str, Any] = Field(description="JSON Schema of the parameters.")
    result_schema: dict[str, Any] = Field(description="JSON Schema of the result.")
    examples: list[dict[str, Any]] = Field(description="Valid parameters.")


class JobKindList(Out):
    """The catalogue."""

    kinds: list[JobKindSummary] = Field(description="The kinds, in alphabetical order.")
