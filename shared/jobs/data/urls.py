"""HTTP URLs of clients. The worker checks the address when it downloads."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, StringConstraints

_SECRET_PARAMETERS = frozenset(
    {
        "access_token", "api_key", "apikey", "auth", "auth_token", "client_secret", "key", "pass", "passwd",
        "password", "pwd", "secret", "sig", "signature", "token", "x-amz-credential", "x-amz-security-token",
        "x-amz-signature", "x-goog-signature",
    }
)  # fmt: skip
_PLAIN = re.compile(r"https?://[A-Za-z0-9.-]+(?:/[^?#@]*)?")  # has no place for what is refused: most URLs are such


def _without_credentials(url: str) -> str:
    if _PLAIN.fullmatch(url):
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("use an absolute http:// or https:// URL with a host")
    try:
        port = parts.port
    except ValueError as invalid:
        raise ValueError("the port of the URL must be a number between 1 and 65535") from invalid
    if port == 0:
        raise ValueError("the port of the URL must be a number between 1 and 65535")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "remove user and password from the URL; configure an HTTP connection and name it in 'connection'"
        )
    named = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if secret := sorted(named & _SECRET_PARAMETERS):
        raise ValueError(
            f"the query parameter {secret[0]!r} looks like a credential, which would be recorded with the job; "
            "configure an HTTP connection and name it in 'connection'"
        )
    return url


PublicHttpUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s\x00-\x1f\\]+$", max_length=2_048),
    AfterValidator(_without_credentials),
    Field(description="Absolute HTTP or HTTPS URL without credentials.", examples=["https://example.com/sales.csv"]),
]
