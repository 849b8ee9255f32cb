"""The door: foreign names, pages of other origins and keys in a URL are refused, whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from api.settings import GatewaySettings
from tests.api.access.keys_made import KeyMaker
from tests.support.servers.services import BOUND_S, Server, gateway_server

JOB = {"kind": "maintenance.cleanup_old_data", "params": {"dry_run": True}}


def refused(answer: httpx.Response, status: int, code: str) -> Any:
    """Return the problem document of a refusal."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "a, b"])
def test_a_foreign_host_is_misdirected(gateway: Server, host: str) -> None:
    """Whatever is asked for, so that a page whose name points here reads and changes nothing."""
    with httpx.Client(base_url=gateway.url, trust_env=False, headers={"Host": host}) as client:
        for method, path in (
            ("GET", "/jobs"),
            ("POST", "/jobs"),
            ("GET", "/docs"),
            ("GET", "/nothing"),
            ("OPTIONS", "/"),
        ):
            refused(client.request(method, path), 421, "misdirected_request")
        assert client.get("/livez").status_code == httpx.codes.OK  # a probe does not know our names


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "localhost.", "[::1]:8000"])
def test_our_own_names_are_let_in(gateway: Server, host: str) -> None:
    with httpx.Client(base_url=gateway.url, trust_env=False) as client:
        assert client.get("/jobs", headers={"Host": host}).status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_another_page_changes_nothing(gateway: Server, headers: dict[str, str], media_type: str) -> None:
    """Whatever the content type, for a page can send some without asking first."""
    with httpx.Client(base_url=gateway.url, trust_env=False, headers=headers | {"Content-Type": media_type}) as client:
        for method, path in (
            ("POST", "/jobs"),
            ("POST", "/queues/etl/pause"),
            ("DELETE", "/jobs/x"),
            ("POST", "/uploads"),
        ):
            refused(client.request(method, path, content=b"{}"), 403, "cross_origin")
        assert client.get("/jobs").status_code == httpx.codes.OK  # it cannot read the answer
        assert "Access-Control-Allow-Origin" not in client.get("/jobs").headers


def test_our_own_page_and_programs_change_what_they_like(gateway: Server) -> None:
    for headers in ({}, {"Origin": gateway.url}, {"Origin": gateway.url, "Sec-Fetch-Site": "same-origin"}):
        answer = httpx.post(f"{gateway.url}/jobs/validate", json=JOB, headers=headers, trust_env=False)
        assert answer.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "query", ["api_key=x", "access_token=x", "a=b&api_key=", "k=cel_4Fh2kQ9x_0123", "k=cel%5F4Fh2kQ9x%5F0"]
)
def test_a_key_in_a_query_is_refused(gateway: Server, query: str) -> None:
    """Before anything looks at it."""
    document = refused(httpx.get(f"{gateway.url}/jobs?{query}", trust_env=False), 400, "key_in_query")
    assert "4Fh2kQ9x" not in str(document)


def test_names_and_origins_are_settings(valkey: Server, tmp_path: Path) -> None:
    """Pages of a configured origin read and change, others still do not."""
    env = {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path / "artifacts"),
        "CELERIAC_HOST_NAMES": "jobs.example.com, 127.0.0.1",
        "CELERIAC_CORS_ORIGINS": "https://app.example.com",
    }
    page = {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"}
    with gateway_server(tmp_path, **env) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/jobs", headers={"Host": "jobs.example.com:443"}).status_code == httpx.codes.OK
        refused(client.get("/jobs", headers={"Host": "localhost"}), 421, "misdirected_request")
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        preflight = client.options("/jobs", headers=page | asked)
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        answer = client.post("/jobs/validate", json=JOB, headers=page)
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        evil = {"Origin": "https://evil.example"}
        assert "Access-Control-Allow-Origin" not in client.options("/jobs", headers=evil | asked).headers
        refused(client.post("/jobs", json=JOB, headers=evil), 403, "cross_origin")


@pytest.mark.parametrize(
    "wrong",
    [
        {"host_names": "https://jobs.example.com"},
        {"host_names": "jobs.example.com:80"},
        {"cors_origins": "*"},
        {"cors_origins": "app.example.com"},
        {"cors_origins": "https://app.example.com/"},
    ],
)
def test_wrong_names_and_origins_are_refused_at_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is not a"):
        GatewaySettings(broker_url="redis://127.0.0.1:1/0", **wrong)


def test_no_log_shows_a_key(own_valkey: Server, keys: KeyMaker, tmp_path: Path) -> None:
    """Neither the gateway's nor uvicorn's of every request, also of one in a URL and of one that fails."""
    key = keys.make()
    env = {"CELERY_BROKER_URL": own_valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "artifacts")}
    with gateway_server(tmp_path, **env) as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S) as client:
            for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {key}x"}):
                client.get("/me", headers=headers)
                client.get(f"/jobs/{key}", headers=headers)
                client.get("/jobs", params={"tag": key}, headers=headers)
                client.post("/jobs", content=key, headers=headers)
        logged = server.log.read_text()
    assert "GET /me" in logged  # uvicorn's lines are there
    assert key[13:] not in logged
