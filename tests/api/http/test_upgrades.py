"""Requests that ask to go on with another protocol, as Java's HTTP client does unless it is told not to."""

from __future__ import annotations

import pytest

from tests.support.servers.services import Server, http_client

pytestmark = pytest.mark.integration
ASKS = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}


@pytest.mark.parametrize("path", ["/uploads?name=sales.csv", "/jobs", "/jobs/cancel", "/schedules"])
def test_a_body_that_the_server_drops_is_refused(gateway: Server, path: str) -> None:
    """And not stored as an empty file, or called wrong JSON."""
    sent = {"content": b'{"a": 1}', "headers": {**ASKS, "Content-Type": "application/json"}}
    answer = http_client.post(gateway.url + path, **sent)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (400, "upgrade_refused")
    chunked = {"content": iter([b'{"a": 1}']), "headers": sent["headers"]}
    assert http_client.post(gateway.url + path, **chunked).json()["code"] == "upgrade_refused"  # type: ignore[arg-type]


def test_a_request_without_a_body_is_answered(gateway: Server) -> None:
    """With HTTP/1.1, which is what a server does that does not change."""
    assert http_client.get(f"{gateway.url}/jobs", headers=ASKS).status_code == 200
