"""Clients that wait for a job, and do not wait long enough."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.by_hand import waiting_requests
from tests.support.servers.services import wait_for

pytestmark = pytest.mark.integration


def test_a_client_that_hangs_up_gives_its_place_back_at_once(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """50 clients ask to wait for a minute and go; the gateway no longer counts them, long before that."""
    path = api.post("/jobs", json=extraction).headers["location"]
    address = urlsplit(str(api.base_url))
    clients = [socket.create_connection((address.hostname or "", address.port or 0)) for _ in range(50)]
    for client in clients:
        client.sendall(f"GET {path}?wait_s=60 HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    wait_for(lambda: waiting_requests(f"{api.base_url}") == 50, "50 requests that wait")
    for client in clients:
        client.close()
    wait_for(lambda: waiting_requests(f"{api.base_url}") == 0, "no request that waits")
