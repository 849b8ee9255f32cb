"""`Idempotency-Key`: the same request again is answered as the first time, and makes no second job."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header, Request
from pydantic_core import from_json

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Chosen by the client, one a request. The same key with the same body replays the first answer, "
        "with another body it is refused.",
    ),
]


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of the request that came with it."""

    key: str
    fingerprint: str


def key_of(request: Request, body: bytes, idempotency_key: str | None) -> Key | None:
    """Return the key with the digest of method, path and canonical body; None where the client gave none."""
    if idempotency_key is None:
        return None
    canonical = json.dumps(from_json(body), sort_keys=True, separators=(",", ":"))
    text = f"{request.method} {request.url.path}\n{canonical}"
    return Key(idempotency_key, hashlib.sha256(text.encode()).hexdigest())
