"""The door: which hosts and pages a request may come by, before it is looked at who makes it.

A browser sends requests for any page that it shows, also to a service on its own machine. So a name that is not ours is
refused (a page can let its name point to this machine), and so is what another page would change.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import Problem

_PROBES = frozenset({"/livez", "/readyz"})  # they tell nothing, and a probe does not know our names
_CHANGE_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS = frozenset({"same-origin", "none"})  # of Sec-Fetch-Site: `none` is what a person has typed
_KEY = re.compile(rb"cel(?:_|%5[fF])[0-9A-Za-z]{8}(?:_|%5[fF])|(?:^|&)(?:access_token|api_key)=")
_READ_BY_PAGES = ("ETag", "Idempotency-Replayed", "Job-Existed", "Location", "Preference-Applied", "Retry-After")
_SENT_BY_PAGES = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer")


class Door:
    """ASGI middleware that refuses foreign hosts (421), changes by foreign pages (403), and keys in a query (400)."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], origins: Collection[str]) -> None:
        """Take the names that `Host` may have, any if one is `*`, and the origins of other pages that may call."""
        self._app = _for_pages_of(app, origins) if origins else app
        self._hosts = None if "*" in hosts else frozenset(host.lower().encode() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "http" and (refused := self._refusal(scope)) is not None:
            await refused.response(scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"")
        if self._hosts is not None and scope["path"] not in _PROBES:
            several = [name for name, _ in scope["headers"]].count(b"host") > 1
            if several or not self._is_ours(_name_of(host), scope):
                return _misdirected(host)
        if scope["query_string"] and _KEY.search(scope["query_string"]):
            return _in_query()
        if scope["method"] not in _CHANGE_NOTHING and self._is_by_another_page(headers, host):
            return _by_another_page()
        return None

    def _is_ours(self, name: bytes, scope: Scope) -> bool:
        """Return whether a name is one of ours: configured, or the address of the socket that the request came to."""
        server = scope.get("server")
        return name in (self._hosts or ()) or (server is not None and name == server[0].lower().encode())

    def _is_by_another_page(self, headers: Mapping[bytes, bytes], host: bytes) -> bool:
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin in self._origins:
            return False
        if site is not None:
            return site.decode("latin-1") not in _OURS
        return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _for_pages_of(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Return `app` with the headers by which browsers let pages of these origins read its answers."""
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=_SENT_BY_PAGES,
        expose_headers=_READ_BY_PAGES,
    )


def _name_of(host: bytes) -> bytes:
    """Return the name in `name:port`, the address in `[address]:port`, without a dot at its end."""
    name = host[1:].partition(b"]")[0] if host.startswith(b"[") else host.partition(b":")[0]
    return name.lower().removesuffix(b".")


def _misdirected(host: bytes) -> Problem:
    shown = host.decode("latin-1")[:100]
    return Problem(
        421,
        "misdirected_request",
        f"This service is not known as {shown!r}. Call it by one of its names, or add this one to CELERIAC_HOST_NAMES.",
    )


def _in_query() -> Problem:
    return Problem(
        400,
        "key_in_query",
        "A key never belongs into a URL, which is logged on the way. Send it as `Authorization: Bearer`, and revoke "
        "this one.",
    )


def _by_another_page() -> Problem:
    return Problem(
        403,
        "cross_origin",
        "A page of another origin may change nothing here. Add its origin to CELERIAC_CORS_ORIGINS if it should.",
    )
