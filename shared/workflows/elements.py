"""The elements of a workflow, as in its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, JsonValue

from shared.contract.definition import KIND_PATTERN
from shared.contract.params import Params

ELEMENT_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

Kind = Annotated[str, Field(pattern=KIND_PATTERN, max_length=128, examples=["etl.extract_data"])]


class Element(Params):
    """A job in a workflow: a step, or a nested workflow."""

    kind: Kind = Field(description="Kind of the job; see `GET /job-kinds`.")
    params: dict[str, JsonValue] = Field(default={}, description="Parameters, without those that previous steps feed.")
    name: Annotated[str, Field(pattern=ELEMENT_NAME_PATTERN)] | None = Field(
        default=None, description="Name in the workflow; default: the verb and noun of the kind."
    )
    may_fail: bool = Field(
        default=False,
        description="Whether the workflow continues without its result if it fails. For single steps only.",
    )


def named(elements: Sequence[Element]) -> Iterator[tuple[Element, str]]:
    """Yield elements with names that are unique among them."""
    taken: set[str] = set()
    highest: dict[str, int] = {}  # by the wanted name: all numbers up to it are used
    for element in elements:
        wanted = name = element.name or element.kind.partition(".")[2]
        number = highest.get(wanted, 1)
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        highest[wanted] = number
        taken.add(name)
        yield element, name
