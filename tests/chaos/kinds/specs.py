"""What both versions of the traced kinds have."""

from __future__ import annotations

from pydantic import BaseModel, Field

from shared.contract.definition import Limits, Retry

LIMITS = Limits(soft_s=60, hard_s=90)
RETRY = Retry(max_retries=8, backoff_s=1, backoff_max_s=4)
MAX_CRASHES = 20  # a scenario kills the worker of a long job more often than a job survives by default


class Traced(BaseModel):
    """What a run says of itself."""

    attempt: int = Field(ge=1, description="Its number.")


class TraceSpec(BaseModel):
    """Where a run leaves its trace, and how it behaves."""

    journal: str = Field(description="File that gets the lines.")
    label: str = Field(pattern=r"^\S+$", description="What the scenario calls this run.")
    lasts_s: float = Field(default=0, ge=0, le=60, description="How long the body takes, in seconds.")
    is_quiet: bool = Field(default=False, description="Whether the body tells the service nothing while it runs.")
    fails: bool = Field(default=False, description="Whether it ends by a failure of its own.")
    fails_first: int = Field(default=0, ge=0, description="How many attempts end by a failure that is transient.")
    published_bytes: int = Field(default=0, ge=0, description="Size of the artifact that it publishes; 0: none.")
