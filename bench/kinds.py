"""A kind whose body does nothing to speak of: what is left is what a task costs."""

from __future__ import annotations

from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits


class Sum(BaseModel):
    """A sum."""

    total: int = Field(description="The sum.")


class AddNumbers(
    Contract[Sum],
    kind="bench.add_numbers",
    queue="bench",
    limits=Limits(soft_s=50, hard_s=60),
    examples=[{"first": 1, "second": 2}],
):
    """Add two numbers."""

    first: int = Field(description="One number.")
    second: int = Field(description="The other.")
