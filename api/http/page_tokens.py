"""Page tokens: the start of the next page of a list, bound to the list's filters."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, Field

from api.http.problems import FieldError, Problem

TOKEN_MAX = 2_000  # characters: other Celery clients choose long ids
_DIGEST_BYTES = 9


class Pages(BaseModel):
    """Query parameters of a list without filters, whose path its tokens are bound to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    page_size: int = Field(default=50, ge=1, le=200, description="Maximum entries per page.")
    page_token: str | None = Field(default=None, max_length=200, description="`next_page_token` of the previous page.")

    def below(self, path: str) -> str | None:
        """Return the id below which the page begins; None for the first page. Raises `Problem` (422)."""
        return next_id_of(self.page_token, path) if self.page_token else None


def page_token(next_id: str, filters: str) -> str:
    """Return the token of the page that continues below `next_id`, a place in the list with these `filters`."""
    return base64.urlsafe_b64encode(next_id.encode() + _digest(filters)).decode()


def next_id_of(token: str, filters: str) -> str:
    """Return the id below which the page continues. Raises `Problem` (422) if the token is not of this list."""
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        next_id = raw[:-_DIGEST_BYTES].decode()
    except (ValueError, binascii.Error):
        _refuse("It is not a token of this service.")
    if raw[-_DIGEST_BYTES:] != _digest(filters):
        _refuse("It belongs to a list with other filters.")
    return next_id


def _digest(filters: str) -> bytes:
    return hashlib.sha256(filters.encode()).digest()[:_DIGEST_BYTES]


def _refuse(why: str) -> NoReturn:
    raise Problem(
        422,
        "invalid_page_token",
        f"The page token is invalid: {why} Send next_page_token unchanged, with the same filters.",
        errors=[FieldError(pointer="page_token", message=why)],
    )
