"""The contract of the callbacks family: send the outcome of a job to its callback URL."""

from __future__ import annotations

from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits, Retry


class CallbackDelivered(BaseModel):
    """The receiver's acknowledgement of the callback. The response's body is not kept: it may be anything."""

    webhook_id: str = Field(
        description="Id of the message, the same in all retries, so that the receiver can deduplicate."
    )
    host: str = Field(description="Host of the receiver; the rest of the URL may contain secrets.")
    http_status: int = Field(ge=200, le=299, description="Status of the receiver's response.")
    attempt: int = Field(ge=1, description="Number of the successful attempt, counted from 1.")
    round_trip_s: float = Field(ge=0, description="Seconds from connecting to the response's headers.")


class DeliverCallback(
    Contract[CallbackDelivered],
    kind="maintenance.deliver_callback",  # from before callbacks were a family; a kind is never renamed
    family="callbacks",
    limits=Limits(soft_s=60, hard_s=75),
    # The delays add up to at most 26 hours, 13 on average: a receiver may be down overnight.
    retry=Retry(max_retries=12, backoff_s=60, backoff_max_s=21_600),
    idempotent_by=("job_id",),
    examples=[{"job_id": "0192f0c1-2a4b-7c3d-8e5f-0123456789ab"}],
):
    """Send the outcome of a job to its `callback_url`, signed according to Standard Webhooks.

    The service submits this job itself, once per job. Submit it again if the receiver missed the callback: it is sent
    to the URL that the job was submitted with.
    """

    job_id: str = Field(
        description="Id of the ended job.",
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        examples=["0192f0c1-2a4b-7c3d-8e5f-0123456789ab"],
    )
