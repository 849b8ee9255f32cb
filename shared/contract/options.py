"""The options of a submission, of a schedule and of a rerun."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.contract.names import Matching

PRIORITIES = 10  # 0..9; 9 is most urgent, on every broker
DEFAULT_PRIORITY = 4
YEAR_S = 366 * 86_400.0
MAX_RUNNING_PER_KEY = 1_000

Tag = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,63}",
        "1 to 64 letters, digits or any of . _ : @ / -, and begin with a letter or digit",
    ),
    Field(examples=["nightly"]),
]
Seconds = Annotated[float, Field(gt=0, le=YEAR_S)]


class RunOptions(BaseModel):
    """Options of a job, except for its start time."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    priority: int = Field(default=DEFAULT_PRIORITY, ge=0, le=9, description="9 is most urgent.")
    expires_in_s: Seconds | None = Field(
        default=None, description="Seconds after acceptance at which a job that has not started ends as `expired`."
    )
    time_limit_s: Annotated[float, Field(ge=1, le=YEAR_S)] | None = Field(
        default=None, description="Hard time limit of one attempt in seconds, at most the kind's; default: the kind's."
    )
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Maximum retries after transient failures; default: the kind's."
    )
    queue: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Queue to use instead of the kind's. Not for workflows: each step has its own queue."
    )
    tags: list[Tag] = Field(default=[], max_length=16, description="Tags by which jobs can be filtered.")
    concurrency_key: Tag | None = Field(
        default=None,
        description="At most `concurrency_limit` jobs with this key run at once; the others wait. Not for workflows.",
    )
    concurrency_limit: int = Field(
        default=1,
        ge=1,
        le=MAX_RUNNING_PER_KEY,
        description="Maximum number of running jobs with the same `concurrency_key`.",
    )
    callback_url: Annotated[str, Field(max_length=2_000, pattern=r"^https?://")] | None = Field(
        default=None,
        description="URL for a signed POST when the job has ended (Standard Webhooks); retried until it answers 2xx.",
    )


class SubmissionOptions(RunOptions):
    """Options of a job, including its start time."""

    run_at: AwareDatetime | None = Field(
        default=None, description="Do not start before this time (RFC 3339, with an offset from UTC)."
    )
    delay_s: Annotated[float, Field(ge=0, le=YEAR_S)] | None = Field(
        default=None, description="Seconds to wait before the job may start."
    )

    @model_validator(mode="after")
    def _start_once(self) -> Self:
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give either 'run_at' or 'delay_s', not both")
        return self
