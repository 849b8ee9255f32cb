"""What a worker of an earlier version has: one kind, and none of those that came later."""

from __future__ import annotations

from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits
from worker.runtime.task import Run, runs


class Told(BaseModel):
    """What was told."""

    text: str = Field(description="The text.")


class TellAll(
    Contract[Told],
    kind="acme.tell_all",
    queue="maintenance",
    limits=Limits(soft_s=60, hard_s=90),
    examples=[{"text": "all"}],
):
    """Tell a text."""

    text: str = Field(description="The text.")


@runs(TellAll)
def tell_all(job: TellAll, run: Run) -> Told:
    """Return the text; no side effects."""
    run.log("told")
    return Told(text=job.text)
