"""Every route of the document and beside it, called with every kind of wrong key: refused, and nothing told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from api.access.guard import need_of
from api.access.needs import ANY_KEY, NEEDS, PUBLIC
from api.app import create_app
from api.settings import GatewaySettings
from shared.access.scopes import PRESETS, Scope
from shared.errors import DefinitionError
from tests.api.access.keys_made import KeyMaker, bearer
from tests.support.images import ROOT

SOME_ID = "01999999-0000-7000-8000-000000000000"


def routes() -> Iterator[tuple[str, str, str]]:
    """Yield method, path with parameters filled in, and the name in `NEEDS` of every route."""
    for name in NEEDS:
        method, _, path = name.partition(" ")
        yield (
            method,
            re.sub(r"\{(\w+)\}", lambda found: "swagger-ui.css" if found[1] == "asset" else SOME_ID, path),
            name,
        )


@pytest.fixture(scope="module")
def shown(keys: KeyMaker) -> dict[str, dict[str, str]]:
    """Return the headers of each kind of wrong key."""
    right = keys.make()
    other = keys.make()
    return {
        "none": {},
        "another word": {"Authorization": "Bearer secret"},
        "another scheme": {"Authorization": f"Basic {right}"},
        "wrong checksum": bearer(right[:-1] + ("a" if right[-1] != "a" else "b")),
        "unknown": bearer("cel_00000000_000000000000000000000000" + "0" * 6),
        "another key's id": bearer(other[:13] + right[13:]),
        "long": bearer(right + "x" * 4000),
        "expired": bearer(keys.expired()),
        "revoked": bearer(keys.revoked()),
    }


def test_every_route_refuses_every_wrong_key(guarded: httpx.Client, shown: dict[str, dict[str, str]]) -> None:
    """401 as a problem document with `WWW-Authenticate`; nothing of the service or the key is in it."""
    for method, path, name in routes():
        for what, headers in shown.items():
            request = guarded.build_request(method, path, json={} if method in {"POST", "PUT"} else None)
            request.headers.pop("Authorization")
            request.headers.update(headers)
            answer = guarded.send(request)
            if NEEDS[name] == PUBLIC:
                assert answer.status_code in {200, 404, 422}, (name, what)
                continue
            assert answer.status_code == httpx.codes.UNAUTHORIZED, (name, what, answer.text)
            problem = answer.json()
            assert problem["code"] == "unauthenticated"
            assert problem.keys() == {
                "type", "title", "status", "detail", "instance", "code", "request_id", "errors",
            }  # fmt: skip
            is_sent = what not in {"none", "another scheme"}
            assert answer.headers["WWW-Authenticate"] == ('Bearer error="invalid_token"' if is_sent else "Bearer")
            assert "cel_" not in answer.text.replace("cel_...", "")


def test_every_route_refuses_a_key_without_its_scope(guarded: httpx.Client, keys: KeyMaker) -> None:
    """403 names the scope that is needed; a key with that scope alone gets further, to whatever the request is."""
    nothing = keys.without_scopes()
    only = {scope: keys.make(scope) for scope in Scope}
    others = {scope: keys.make(*(set(Scope) - {scope})) for scope in Scope}
    for method, path, name in routes():
        need = NEEDS[name]
        body: dict[str, Any] | None = {} if method in {"POST", "PUT"} else None
        answer = guarded.request(method, path, json=body, headers=bearer(nothing))
        if need in {PUBLIC, ANY_KEY}:
            assert answer.status_code in {200, 404, 422}, name
            continue
        assert isinstance(need, Scope)
        for key in (nothing, others[need]):
            answer = guarded.request(method, path, json=body, headers=bearer(key))
            assert answer.status_code == httpx.codes.FORBIDDEN, name
            assert answer.json()["code"] == "insufficient_scope"
            assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{need}"'
        answer = guarded.request(method, path, json=body, headers=bearer(only[need]))
        assert answer.status_code not in {401, 403}, (name, answer.text)
        assert answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR, (name, answer.text)


def test_the_document_says_what_each_operation_needs(guarded: httpx.Client) -> None:
    """An HTTP bearer key with the scope as its role, so that generated clients carry it; public ones say nothing."""
    document: dict[str, Any] = guarded.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            need = NEEDS[f"{method.upper()} {path}"]
            wanted = None if need == PUBLIC else [{"key": [] if need == ANY_KEY else [need]}]
            assert operation.get("security") == wanted, (method, path)
            assert ("401" in operation["responses"]) == (need != PUBLIC)
            assert ("403" in operation["responses"]) == isinstance(need, Scope)


def test_every_route_says_what_it_needs_and_nothing_else_does() -> None:
    """A new route without a line in the table stops the start."""
    app = create_app(GatewaySettings(broker_url="redis://127.0.0.1:1/0"))
    found = {f"{method} {route.path}" for route in app.routes for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    assert found == set(NEEDS)
    with pytest.raises(DefinitionError, match=r"GET /new: say in api/access/needs.py"):
        need_of(APIRoute("/new", lambda: None, methods=["GET"]))


def test_every_scope_is_in_a_preset_and_presets_grow() -> None:
    assert PRESETS["viewer"] < PRESETS["submitter"] < PRESETS["operator"] < PRESETS["admin"] == set(Scope)


def test_the_page_says_what_a_scope_allows() -> None:
    """The table of docs/access.md is that of the code, with the presets; so is the list of what is public."""
    page = (ROOT / "docs" / "access.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+:\w+)` \| ([^|]*) \|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
    assert [Scope(row[0]) for row in rows] == list(Scope)
    for name, said, *marks in rows:
        allowed = [route for route, need in NEEDS.items() if need == name and not route.endswith("/retry")]
        assert re.findall(r"`([^`]+)`", said) == allowed, name
        assert [mark.strip() == "yes" for mark in marks] == [
            Scope(name) in PRESETS[preset] for preset in ("viewer", "submitter", "operator")
        ]
    (public,) = re.findall(r"Without one: (.*)\.$", page, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", public) == [route for route, need in NEEDS.items() if need == PUBLIC]
