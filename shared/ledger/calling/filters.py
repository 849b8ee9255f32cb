"""Filters of jobs: the criteria of HTTP and command line, and the arguments of the script."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from shared.contract.options import Tag
from shared.ledger.keys import Keys
from shared.ledger.states import State


def _written_out(value: object) -> object:
    """Refuse numbers, which Pydantic would read as seconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and value[:5].endswith("-")):
        return value
    raise ValueError("write a time like 2026-01-31T12:00:00Z")


# Behind a validator, the type no longer sees that the text comes from JSON, so strict models would refuse it.
Moment = Annotated[AwareDatetime, Strict(strict=False), BeforeValidator(_written_out)]


class JobCriteria(BaseModel):
    """Criteria to select jobs. Omitted ones match every job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: list[State] = Field(default=[], max_length=len(State), description="One of these states; can be repeated.")
    kind: str | None = Field(default=None, max_length=128, description="This kind.")
    queue: str | None = Field(default=None, max_length=64, description="This queue.")
    tag: Tag | None = Field(default=None, description="This tag.")
    schedule: UUID | None = Field(default=None, description="Submitted by this schedule.")
    created_after: Moment | None = Field(default=None, description="Accepted at or after this time (RFC 3339).")
    created_before: Moment | None = Field(default=None, description="Accepted before this time (RFC 3339).")


@dataclass(frozen=True, slots=True)
class Filter:
    """The filter of the script."""

    states: tuple[State, ...] = ()
    kind: str | None = None
    queue: str | None = None
    tag: str | None = None
    schedule: str | None = None
    lower_id: str | None = None  # exclusive; see ids.time_floor
    upper_id: str | None = None  # exclusive

    def arguments(self, limit: int, scan: int, keys: Keys) -> dict[str, Any]:
        """Return the filter as arguments of the script: groups of indexes, of which a job is in one of each."""
        groups = [[keys(name, value)] for name in EXACT if (value := getattr(self, name)) is not None]
        if self.states and set(self.states) != set(State):
            groups.append([keys("state", state) for state in dict.fromkeys(self.states)])
        return {
            "indexes": groups or [[keys("jobs")]],
            "lower": f"({self.lower_id}" if self.lower_id else "-",
            "upper": f"({self.upper_id}" if self.upper_id else "+",
            "limit": limit,
            "scan": scan,
        }


#: Criteria with a single value, each with an index of its own.
EXACT = tuple(field.name for field in fields(Filter) if field.name in JobCriteria.model_fields)
