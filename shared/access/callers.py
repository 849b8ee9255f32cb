"""The caller of the gateway: whose it is, what it may do, and with what. Every route gets it in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, field_validator

from shared.access.scopes import ALL, Scope
from shared.contract.names import Access, ConnectionName
from shared.contract.options import PRIORITIES

DEFAULT_TENANT = "default"
_MOST = 100  # of each restriction
_NAME: TypeAdapter[str] = TypeAdapter(ConnectionName)

# `*` is the only sign with a meaning: then one pattern that matches another as text matches all that the other does.
KindPattern = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.*-]{1,100}$"),
    Field(description="A kind, or a pattern: `*` stands for any text.", examples=["report.*"]),
]
QueueName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Restrictions(BaseModel):
    """With what a key may do what its scopes allow. Null restricts nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kinds: Annotated[list[KindPattern], Field(max_length=_MOST)] | None = Field(
        default=None, description="Only jobs of these kinds, and of workflows each step."
    )
    queues: Annotated[list[QueueName], Field(max_length=_MOST)] | None = Field(
        default=None, description="Only jobs and steps in these queues."
    )
    connections: Annotated[dict[str, Access], Field(max_length=_MOST)] | None = Field(
        default=None, description="Only these connections: to `read`, or to `write` as well."
    )
    max_priority: Annotated[int, Field(ge=0, lt=PRIORITIES)] | None = Field(
        default=None, description="Only jobs of at most this priority."
    )

    @field_validator("connections")
    @classmethod
    def _are_names(cls, value: dict[str, Access] | None) -> dict[str, Access] | None:
        for name in value or ():
            _NAME.validate_python(name)
        return value

    def allows_kind(self, kind: str) -> bool:
        """Return whether jobs of this kind, or of all kinds of this pattern, are allowed."""
        return self.kinds is None or any(fnmatchcase(kind, pattern) for pattern in self.kinds)

    def allows_queue(self, queue: str) -> bool:
        """Return whether jobs may be in this queue."""
        return self.queues is None or queue in self.queues

    def allows_connection(self, name: str, access: Access) -> bool:
        """Return whether jobs may read, or write, this connection."""
        return self.connections is None or self.connections.get(name) in {access, "write"}

    def allows_priority(self, priority: int) -> bool:
        """Return whether jobs may have this priority."""
        return self.max_priority is None or priority <= self.max_priority

    def exceeded_by(self, other: Restrictions) -> str | None:
        """Return the name of a restriction that `other` does not have as narrow as this; None if it allows no more."""
        fits: Mapping[str, bool] = {
            "kinds": self.kinds is None or (other.kinds is not None and all(map(self.allows_kind, other.kinds))),
            "queues": self.queues is None or (other.queues is not None and all(map(self.allows_queue, other.queues))),
            "connections": self.connections is None
            or (
                other.connections is not None
                and all(self.allows_connection(name, access) for name, access in other.connections.items())
            ),
            "max_priority": self.max_priority is None
            or (other.max_priority is not None and self.allows_priority(other.max_priority)),
        }
        return next((name for name, is_met in fits.items() if not is_met), None)


UNRESTRICTED = Restrictions()  # all that restrict nothing are this one: whether a job has to be looked at is one `is`
Authentication = Literal["key", "none"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request. `key_id` is None where no key is asked for."""

    tenant: str
    key_id: str | None
    scopes: frozenset[Scope]
    restrictions: Restrictions

    @property
    def name(self) -> str:
        """What the records say of who did something."""
        return f"key:{self.key_id}" if self.key_id else "unauthenticated"


#: Where no key is asked for: on loopback before the first key, or where another program asks.
ANYONE = Caller(DEFAULT_TENANT, None, ALL, UNRESTRICTED)
