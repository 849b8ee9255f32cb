"""Which gateway is called, with what key, and how often a call is repeated."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from celeriac.client.failures import Unreachable
from celeriac.client.wire import Request
from shared import __version__
from shared.texts import redact

DEFAULT_URL = "http://127.0.0.1:8000"
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Retries:
    """For how many seconds after its first failure a call is repeated. 0: it is not.

    Repeated are: connections that fail; lost answers, if the call changes nothing or has an Idempotency-Key; and the
    answers 429, 502, 503 and 504. `connect_for_s` bounds the first.
    """

    for_s: float = 30.0
    connect_for_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's URL, the headers of each request, and the retries."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    retries: Retries

    @classmethod
    def at(cls, url: str | None, api_key: str | None, retries: Retries) -> Gateway:
        """Return the gateway at `url`; both are taken from `CELERIAC_URL` and `CELERIAC_API_KEY` by default.

        Raises `Unreachable` for what is not a URL, `ValueError` for a key that no header can have or is not readable.
        """
        url = (url or os.environ.get("CELERIAC_URL") or DEFAULT_URL).rstrip("/")
        try:
            refuse_wrong_url(url)
        except ValueError as wrong:
            raise Unreachable(f"{redact(url)} is not a URL such as {DEFAULT_URL}: {wrong}.") from None
        key = (api_key or key_of_environment()).strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("The API key has characters that a header cannot have. Copy it again.")
        headers = {"Accept": "application/json, application/problem+json", "User-Agent": f"celeriac/{__version__}"}
        return cls(url, headers | ({"Authorization": f"Bearer {key}"} if key else {}), retries)

    @property
    def shown(self) -> str:
        """The URL for messages, without credentials."""
        return redact(self.url)

    @property
    def http_options(self) -> Mapping[str, Any]:
        """The arguments of httpx's clients."""
        url = httpx.URL(self.url)
        trust_env = url.host not in {"127.0.0.1", "localhost", "::1"}  # a proxy cannot reach our loopback address
        return {"verify": url.scheme != "http" and _certificates(trust_env=trust_env), "trust_env": trust_env}

    def arguments(self, request: Request) -> Mapping[str, Any]:
        """Return the arguments of httpx's `build_request`, except for the content."""
        return {
            "method": request.method,
            "url": self.url + request.path,
            "params": {name: value for name, value in request.query.items() if value not in (None, [], ())},
            "headers": {**self.headers, **request.headers},
            "timeout": httpx.Timeout(request.read_timeout_s, connect=_CONNECT_TIMEOUT_S),
        }


def key_of_environment() -> str:
    """Return the key in `CELERIAC_API_KEY`, or in the file that `CELERIAC_API_KEY_FILE` names; empty without one.

    Raises `ValueError` for a file that cannot be read.
    """
    if key := os.environ.get("CELERIAC_API_KEY"):
        return key
    if not (file := os.environ.get("CELERIAC_API_KEY_FILE")):
        return ""
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as unreadable:
        raise ValueError(f"CELERIAC_API_KEY_FILE: {file} cannot be read: {type(unreadable).__name__}.") from None


@cache
def _certificates(*, trust_env: bool) -> ssl.SSLContext:
    """Return those that are trusted, read once: that takes longer than a request, and some make a client for each."""
    return httpx.create_ssl_context(trust_env=trust_env)


def segment(name: str) -> str:
    """Return `name` as one segment of a path; what is not UTF-8 in an argument of a program stays as it is."""
    if not name.strip("."):
        return name.replace(".", "%2E")  # clients resolve `.` and `..`
    return quote(name, safe="", errors="surrogateescape")


def refuse_wrong_url(url: str) -> None:
    """Raise `ValueError` if nothing can be called there; to httpx, `[` is a host."""
    try:
        httpx.URL(url)
    except httpx.InvalidURL as wrong:
        raise ValueError(str(wrong)) from None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(mark.isspace() for mark in url):
        raise ValueError("it does not consist of http:// or https:// and a host")
