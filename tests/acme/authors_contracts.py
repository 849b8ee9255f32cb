"""Kinds of authors who try everything that a body can do."""

from __future__ import annotations

from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits, Retry


class Done(BaseModel):
    """What a body found out."""

    said: str = Field(default="", description="What it has to say.")


class Misbehave(
    Contract[Done],
    kind="acme.misbehave",
    queue="etl",
    limits=Limits(soft_s=20, hard_s=30),
    retry=Retry(max_retries=1, backoff_s=0.01, backoff_max_s=0.02),
    examples=[{"how": "well"}],
):
    """Do something that no body should do."""

    how: str = Field(description="Name of the function in tests/acme/hostile.py.")


class Use(
    Contract[Done],
    kind="acme.use_run",
    queue="etl",
    limits=Limits(soft_s=20, hard_s=30),
    retry=Retry(max_retries=2, backoff_s=0.01, backoff_max_s=0.02),
    examples=[{"what": "prints"}],
):
    """Use one of the things that a run offers."""

    what: str = Field(description="Name of the function in tests/acme/authors.py.")
    uri: str = Field(default="", description="A file.")
    then: str = Field(default="succeed", description="What to do in the end.")
