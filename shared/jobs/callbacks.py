"""The contract of the callbacks family: tell a job's end to whoever asked for it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits, Retry


class CallbackDelivered(BaseModel):
    """That the receiver took the callback. What it answered is not kept: it may be anything."""

    webhook_id: str = Field(description="Id of the message, the same over retries, for the receiver to know a second.")
    host: str = Field(description="Where it went; the rest of the URL may carry secrets.")
    http_status: int = Field(ge=200, le=299, description="What the receiver answered.")
    attempt: int = Field(ge=1, description="Which attempt it took, counted from 1.")
    round_trip_s: float = Field(ge=0, description="From connecting to the answer's head, in seconds.")


class DeliverCallback(
    Contract[CallbackDelivered],
    kind="maintenance.deliver_callback",  # from before callbacks were a family; a kind is never renamed
    family="callbacks",
    limits=Limits(soft_s=60, hard_s=75),
    # The sum of the waits is at most 26 hours, and 13 on average: a receiver may be down overnight.
    retry=Retry(max_retries=12, backoff_s=60, backoff_max_s=21_600),
    idempotent_by=("job_id",),
    examples=[{"job_id": "0192f0c1-2a4b-7c3d-8e5f-0123456789ab"}],
):
    """Tell the end of a job to its `callback_url`, signed after Standard Webhooks.

    The service submits it by itself, once a job. Submit it again to have an end told again that its receiver missed:
    it goes to the URL that the job was submitted with, and to no other.
    """

    job_id: str = Field(
        description="The job that has ended.",
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        examples=["0192f0c1-2a4b-7c3d-8e5f-0123456789ab"],
    )
