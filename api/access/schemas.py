"""Keys as clients see them. The text of a key is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AwareDatetime, Field, StringConstraints

from api.http.models import In, Out
from shared.access.callers import Authentication, Restrictions
from shared.access.keyring import Standing
from shared.access.scopes import Preset, Scope
from shared.access.terms import DAY_S, EXPIRES_IN_S, MOST_EXPIRES_IN_S
from shared.contract.names import Access

_ExpiresInS = Annotated[float, Field(ge=1, le=MOST_EXPIRES_IN_S)]
_KEY = Field(description="The key: shown this once.", examples=["cel_4Fh2kQ9x_..."])


class KeyRequest(In):
    """A key to make."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(
        description="What it is for.", examples=["nightly reports"]
    )
    preset: Preset | None = Field(default=None, description="The scopes of a usual role, instead of `scopes`.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] | None = Field(
        default=None, description="What it allows."
    )
    restrictions: Restrictions = Field(default=Restrictions(), description="With what it allows that.")
    expires_in_s: _ExpiresInS = Field(default=EXPIRES_IN_S, description="Seconds until it expires.")


class RollRequest(In):
    """How a key gets a new secret."""

    overlap_s: Annotated[float, Field(ge=0, le=30 * DAY_S)] = Field(
        default=0.0, description="Seconds for which the present secret stays valid."
    )
    expires_in_s: _ExpiresInS | None = Field(
        default=None, description="Seconds until the key expires; default: as before."
    )


class KeyRestrictions(Out):
    """With what a key may do what its scopes allow. Null restricts nothing."""

    kinds: list[str] | None = Field(description="Only jobs of these kinds or patterns of kinds.")
    queues: list[str] | None = Field(description="Only jobs and steps in these queues.")
    connections: dict[str, Access] | None = Field(description="Only these connections: to read, or to write as well.")
    max_priority: int | None = Field(description="Only jobs of at most this priority.")

    @classmethod
    def of(cls, restrictions: Restrictions) -> Self:
        """Return restrictions as clients see them."""
        return cls(**restrictions.model_dump())


class ApiKey(Out):
    """A key, without its text."""

    id: str = Field(description="The characters behind `cel_`.", examples=["4Fh2kQ9x"])
    name: str = Field(description="What it is for.")
    tenant: str = Field(description="Whose it is.")
    scopes: list[Scope] = Field(description="What it allows.")
    restrictions: KeyRestrictions = Field(description="With what it allows that.")
    standing: Standing = Field(description="Whether it may be used.")
    created_by: str = Field(description="Who made it.", examples=["key:Zd81mPq0"])
    created_at: AwareDatetime = Field(description="When it was made.")
    expires_at: AwareDatetime = Field(description="When it expires.")
    last_used_at: AwareDatetime | None = Field(description="When it was used last, to the minute.")
    revoked_at: AwareDatetime | None = Field(description="When it was revoked.")
    former_until: AwareDatetime | None = Field(description="Until when the secret before the last roll is valid.")


class ApiKeyWithText(ApiKey):
    """A new key, or one with a new secret."""

    key: str = _KEY


class ApiKeyPage(Out):
    """A page of keys, newest first."""

    keys: list[ApiKey] = Field(description="The keys.")
    next_page_token: str | None = Field(description="Send it as `page_token`; null on the last page.")


class Me(Out):
    """Who makes this request, and what they may do."""

    tenant: str = Field(description="Whose jobs they see.")
    authentication: Authentication = Field(description="`none` where nobody is asked for a key.")
    key_id: str | None = Field(description="Id of the key.")
    scopes: list[Scope] = Field(description="What they may do.")
    restrictions: KeyRestrictions = Field(description="With what they may do that.")
