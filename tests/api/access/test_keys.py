"""Keys over HTTP: made once, listed, revoked and rolled at once in every gateway; none gives more than it has."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.access.callers import Restrictions
from shared.access.secrets import digest, id_of
from shared.access.terms import DAY_S
from tests.api.access.keys_made import KeyMaker, bearer
from tests.support.servers.services import BOUND_S, Server, gateway_server, wait_for


def made(guarded: httpx.Client, **more: Any) -> Any:
    """Make a key over HTTP."""
    answer = guarded.post("/keys", json={"name": "reports", "scopes": ["jobs:read", "keys:admin"]} | more)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return answer.json()


def test_a_key_is_shown_once_and_stored_as_a_digest(guarded: httpx.Client, keys: KeyMaker) -> None:
    """The ledger has its SHA-256; no list and no other answer has the text. It always expires."""
    key = made(guarded, expires_in_s=DAY_S)
    text = key.pop("key")
    assert id_of(text) == key["id"]
    shown = guarded.get(f"/keys/{key['id']}")
    assert shown.json() == key
    assert text[13:] not in shown.text + guarded.get("/keys").text
    stored = keys.record(text)
    assert stored["digest"] == digest(text)
    assert text[13:] not in str(stored)
    assert int(stored["expires_at"]) - int(stored["created_at"]) == DAY_S * 1000
    assert {"tenant", "name", "scopes", "restrictions", "created_by"} <= stored.keys()
    assert stored["created_by"].startswith("key:")


def test_the_list_has_pages_newest_first(guarded: httpx.Client) -> None:
    ids = [made(guarded)["id"] for _ in range(3)]
    first = guarded.get("/keys", params={"page_size": 2}).json()
    second = guarded.get("/keys", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    assert [key["id"] for key in (first["keys"] + second["keys"])[:3]] == ids[::-1]


def test_a_revoked_key_ends_at_once_in_every_gateway(guarded: httpx.Client, own_valkey: Server, tmp_path: Path) -> None:
    """Also in one that has just looked it up: the revocation is published."""
    env = {"CELERY_BROKER_URL": own_valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "artifacts")}
    key = made(guarded)
    with gateway_server(tmp_path, **env) as other, httpx.Client(headers=bearer(key["key"]), trust_env=False) as client:
        for url in (str(guarded.base_url), other.url):
            assert client.get(f"{url}/me").json()["key_id"] == key["id"]
        assert guarded.post(f"/keys/{key['id']}/revoke").json()["standing"] == "revoked"
        assert client.get(f"{guarded.base_url}/me").status_code == httpx.codes.UNAUTHORIZED
        began_s = time.monotonic()
        wait_for(lambda: client.get(f"{other.url}/me").status_code == httpx.codes.UNAUTHORIZED, "the end of the key")
        took_s = time.monotonic() - began_s
    assert took_s < BOUND_S
    assert guarded.post(f"/keys/{key['id']}/revoke").status_code == httpx.codes.OK
    assert guarded.post(f"/keys/{key['id']}/roll").json()["code"] == "key_revoked"


def test_a_body_that_has_a_key_twice_is_refused(guarded: httpx.Client) -> None:
    """As by every route that reads JSON."""
    url = f"/keys/{made(guarded)['id']}/roll"
    refused = guarded.post(url, content='{"a": 1, "a": 1}', headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (400, "duplicate_key")


def test_a_rolled_key_has_a_new_secret_and_for_a_while_the_old_one(guarded: httpx.Client, keys: KeyMaker) -> None:
    key = made(guarded)
    rolled = guarded.post(f"/keys/{key['id']}/roll", json={"overlap_s": 60}).json()
    assert rolled["key"] != key["key"]
    for text in (key["key"], rolled["key"]):
        assert guarded.get("/me", headers=bearer(text)).json()["key_id"] == key["id"]
    again = guarded.post(f"/keys/{key['id']}/roll").json()
    for text in (key["key"], rolled["key"]):
        assert guarded.get("/me", headers=bearer(text)).status_code == httpx.codes.UNAUTHORIZED
    assert guarded.get("/me", headers=bearer(again["key"])).status_code == httpx.codes.OK
    expired = keys.expired()
    assert guarded.post(f"/keys/{expired[4:12]}/roll").json()["code"] == "key_expired"
    renewed = guarded.post(f"/keys/{expired[4:12]}/roll", json={"expires_in_s": 60}).json()
    assert guarded.get("/me", headers=bearer(renewed["key"])).status_code == httpx.codes.OK


def test_no_key_gives_more_than_it_has(guarded: httpx.Client, keys: KeyMaker) -> None:
    """Neither a new one nor the secret of one that allows more."""
    small = keys.make("keys:admin", "jobs:read", restrictions=Restrictions(kinds=["report.*"]))
    mine = bearer(small)
    body = {"name": "x", "scopes": ["jobs:read"], "restrictions": {"kinds": ["report.compose"]}}
    assert guarded.post("/keys", json=body, headers=mine).status_code == httpx.codes.CREATED
    for more, pointer in (
        ({"scopes": ["jobs:submit"]}, "/scopes"),
        ({"restrictions": {}}, "/restrictions/kinds"),
        ({"restrictions": {"kinds": ["*"]}}, "/restrictions/kinds"),
    ):
        refused = guarded.post("/keys", json=body | more, headers=mine)
        assert refused.status_code == httpx.codes.FORBIDDEN
        assert refused.json()["errors"][0]["pointer"] == pointer
    larger = made(guarded)["id"]
    assert guarded.post(f"/keys/{larger}/roll", headers=mine).json()["code"] == "exceeds_own_key"


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "x", "preset": "viewer", "scopes": ["jobs:read"]},
        {"name": "", "preset": "viewer"},
        {"name": "x", "preset": "king"},
        {"name": "x", "scopes": ["jobs:everything"]},
        {"name": "x", "scopes": []},
        {"name": "x", "preset": "viewer", "expires_in_s": 0},
        {"name": "x", "preset": "viewer", "expires_in_s": 1e12},
        {"name": "x", "preset": "viewer", "restrictions": {"kinds": ["a?"]}},
    ],
)
def test_wrong_keys_are_refused_by_field(guarded: httpx.Client, body: dict[str, Any]) -> None:
    refused = guarded.post("/keys", json=body)
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert refused.json()["errors"]


def test_the_use_of_a_key_is_written_at_most_once_a_minute(guarded: httpx.Client, keys: KeyMaker) -> None:
    """And not by who only knows its id."""
    text, other = keys.make(), keys.make()
    guarded.get("/me", headers=bearer(other[:13] + text[13:]))
    used = keys.ledger.call("key_used", {"id": text[4:12], "every_ms": 60_000})
    assert used is None
    first = keys.record(text)["last_used_at"]
    for _ in range(3):
        guarded.get("/me", headers=bearer(text))
    assert keys.record(text)["last_used_at"] == first
    unused = keys.make()
    guarded.get("/me", headers=bearer(unused))
    wait_for(lambda: "last_used_at" in keys.record(unused), "the note of the use")
    assert "last_used_at" not in keys.record(other)


def test_unknown_keys_are_404(guarded: httpx.Client) -> None:
    for method, path in (("GET", ""), ("POST", "/revoke"), ("POST", "/roll")):
        answer = guarded.request(method, f"/keys/nobody12{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_key")
