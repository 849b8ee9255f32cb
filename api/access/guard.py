"""Each route behind what it needs: the caller's key is checked before anything of the request is read.

The caller is in the request's scope, where `caller_of` finds it: dependencies cost what the direct routes save.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.known import KnownKeys
from api.access.needs import ANY_KEY, NEEDS, PUBLIC, Need
from api.http.problems import Problem
from shared.access.callers import ANYONE, Caller
from shared.access.scopes import Scope as AccessScope
from shared.access.secrets import digest, id_of
from shared.errors import DefinitionError

_CALLER = "celeriac.caller"
_SCHEME = b"bearer "
_LONGEST_HEADER = 200  # bytes: a key has 43
_NO_KEY = (
    "Send a key as `Authorization: Bearer cel_...`. An operator makes one with `celeriac keys create`; "
    "the command line and the clients take it from CELERIAC_API_KEY."
)


def guard(app: FastAPI) -> None:
    """Put every route of `app` behind what it needs. Raises `DefinitionError` for one that says nothing about it."""
    for route in app.routes:
        need = need_of(route)
        if isinstance(route, Route) and need != PUBLIC:
            route.app = _Guarded(route.app, need)


def need_of(route: BaseRoute) -> Need:
    """Return what a route needs. Raises `DefinitionError` if api/access/needs.py does not say it."""
    if not isinstance(route, Route):
        raise DefinitionError(f"{route!r} is of a kind that cannot be guarded.")
    names = [f"{method} {route.path}" for method in route.methods or () if method != "HEAD"]
    needs = {NEEDS.get(name) for name in names}
    if len(needs) != 1 or None in needs:
        raise DefinitionError(f"{', '.join(names)}: say in api/access/needs.py what it needs of its caller.")
    (need,) = needs
    return need  # type: ignore[return-value]  # it is not None


def caller_of(request: Request) -> Caller:
    """Return who makes a request. Every route takes it from here."""
    caller: Caller = request.scope[_CALLER]
    return caller


async def _caller(request: Request) -> Caller:
    return caller_of(request)


CallerOf = Annotated[Caller, Depends(_caller)]


class _Guarded:
    """A route's application, behind what the route needs."""

    def __init__(self, app: ASGIApp, need: Need) -> None:
        self._app = app
        self._need = None if need == ANY_KEY else AccessScope(need)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await _admitted(scope)
        if self._need is not None and self._need not in caller.scopes:
            raise _insufficient(self._need)
        scope[_CALLER] = caller
        await self._app(scope, receive, send)


async def _admitted(scope: Scope) -> Caller:
    """Return the caller. Raises `Problem` (401) and `LedgerUnavailable`."""
    state: Any = scope["app"].state
    keys: KnownKeys = state.keys
    if not await keys.is_asked_for():
        if state.settings.allow_unauthenticated or is_local(scope.get("server")):
            return ANYONE
        raise _unauthenticated(f"There is no key yet, and this address is not loopback. {_NO_KEY}")
    sent = _sent(scope)
    if sent is None:
        if state.settings.allow_unauthenticated:
            return ANYONE
        raise _unauthenticated(_NO_KEY)
    return await _shown(sent, keys)


async def _shown(text: str, keys: KnownKeys) -> Caller:
    key_id = id_of(text)
    if key_id is None:
        raise _invalid("What was sent is not a key, or mistyped: its checksum is wrong. Copy it again.")
    key, now_ms = await keys.find(key_id)
    if key is None or not key.has_secret(digest(text), now_ms):
        raise _invalid("The key is unknown. Copy it again, or ask an operator for another one.")
    standing = key.standing(now_ms)
    if standing != "valid":
        raise _invalid(f"The key is {standing}. Ask an operator for another one.")
    keys.note_use(key, now_ms)
    return key.caller


def _sent(scope: Scope) -> str | None:
    """Return what was sent as a key: None for nothing, and for what only a proxy in front may have asked for."""
    found: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise _invalid("The request has several Authorization headers. Send one.")
    if found[0][: len(_SCHEME)].lower() != _SCHEME:
        return None
    return found[0][len(_SCHEME) : _LONGEST_HEADER].strip().decode("latin-1")


def is_local(server: tuple[str, int | None] | None) -> bool:
    """Return whether a request came to an address that only programs of this machine reach.

    It is the address of the connection's socket. A name is that of a socket in the file system, or of no socket.
    """
    try:
        return server is None or ipaddress.ip_address(server[0]).is_loopback
    except ValueError:
        return True


def _unauthenticated(detail: str) -> Problem:
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})


def _invalid(detail: str) -> Problem:
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _insufficient(scope: AccessScope) -> Problem:
    return Problem(
        403,
        "insufficient_scope",
        f"The key lacks the scope {scope}. Use another key, or ask an operator for one with it.",
        headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
    )
