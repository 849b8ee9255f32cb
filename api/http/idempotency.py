"""`Idempotency-Key`: a repeated request gets the first response and creates no second job."""

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
        description="Chosen by the client, one per request. The same key and body replay the first response; "
        "the same key with another body is refused.",
    ),
]


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of the request that came with it."""

    key: str
    fingerprint: str


def key_of(request: Request, body: bytes, idempotency_key: str | None, *, path: str | None = None) -> Key | None:
    """Return the key with the digest of method, path and canonical body; None without a key.

    `path` stands for the request's own, where two paths are the same call.
    """
    if idempotency_key is None:
        return None
    canonical = json.dumps(from_json(body), sort_keys=True, separators=(",", ":"))
    text = f"{request.method} {path or request.url.path}\n{canonical}"
    return Key(idempotency_key, hashlib.sha256(text.encode()).hexdigest())
