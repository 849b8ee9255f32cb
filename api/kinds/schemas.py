"""Response models of the catalogue of kinds."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.http.models import Out
from shared.contract.definition import KIND_PATTERN, Concurrency, Limits, Rate, Retry, Unique


class JobKindSummary(Out):
    """A kind in the catalogue."""

    kind: str = Field(pattern=KIND_PATTERN, description="Its name.", examples=["etl.extract_data"])
    family: str = Field(description="Its family; the workers of the family run it.")
    version: int = Field(ge=1, description="Version of the form of its parameters.")
    summary: str = Field(description="What it does, in one line.")
    queue: str = Field(description="Its queue.")
    limits: Limits = Field(description="Time limits of one attempt.")
    retry: Retry = Field(description="How transient failures are retried.")
    concurrency: Concurrency | None = Field(
        description="How many of its jobs run at once; null if only the workers limit it."
    )
    rate: Rate | None = Field(description="How often its jobs start; null if only the workers limit it.")
    unique: Unique | None = Field(
        description="At most one job that has not ended, by which parameters; null if it is not unique."
    )
    deprecated: str | None = Field(description="What to use instead; null if it is not deprecated.")
    replaces: list[str] = Field(description="Old kinds that are submitted and run as this one.")
    is_internal: bool = Field(description="Whether it is only a step of workflows, which nobody submits by itself.")
    is_workflow: bool = Field(description="Whether it is a workflow of several steps.")


class JobKind(JobKindSummary):
    """A kind with its schemas."""

    description: str = Field(description="What it does, in detail; may be empty.")
    max_crashes: int = Field(ge=1, description="Number of worker crashes after which it is quarantined.")
    params_schema: dict[str, Any] = Field(description="JSON Schema of the parameters.")
    result_schema: dict[str, Any] = Field(description="JSON Schema of the result.")
    examples: list[dict[str, Any]] = Field(description="Examples of valid parameters.")


class JobKindList(Out):
    """The catalogue."""

    kinds: list[JobKindSummary] = Field(description="The kinds, in alphabetical order.")
