"""Liveness, readiness, metrics and the documentation page of a gateway process."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.ledger.ids import uuid7
from tests.support.servers.outages import restartable_valkey
from tests.support.servers.services import Server, gateway_server, http_client

pytestmark = pytest.mark.integration


def test_a_gateway_without_its_ledger_lives_and_is_not_ready(tmp_path: Path) -> None:
    """With the ledger down /livez stays 200 and /readyz names the ledger; when it is back, /readyz is 200 again."""
    with restartable_valkey(tmp_path / "valkey") as valkey:
        env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "artifacts")}
        with gateway_server(tmp_path / "gateway", **env) as gateway:
            assert http_client.get(f"{gateway.url}/readyz").json() == {"is_ready": True}
            valkey.stop()
            assert http_client.get(f"{gateway.url}/livez").json() == {"is_alive": True}
            down = http_client.get(f"{gateway.url}/readyz")
            assert (down.status_code, down.json()["code"], down.headers["retry-after"]) == (503, "not_ready", "2")
            assert down.json()["detail"].startswith("Down: ledger.")
            valkey.start()
            assert http_client.get(f"{gateway.url}/readyz").status_code == 200


def test_a_broker_elsewhere_is_named_when_it_is_down(tmp_path: Path, valkey: Server) -> None:
    """With a separate broker: first one that listens, then one that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        env = {
            "CELERY_BROKER_URL": f"amqp://guest:secret@127.0.0.1:{broker.getsockname()[1]}//",
            "CELERIAC_LEDGER_URL": valkey.redis_url,
            "CELERIAC_STORE_URL": str(tmp_path / "artifacts"),
        }
        with gateway_server(tmp_path, **env) as gateway:
            assert http_client.get(f"{gateway.url}/readyz").status_code == 200
            broker.close()
            down = http_client.get(f"{gateway.url}/readyz")
            assert (down.status_code, down.json()["detail"]) == (503, "Down: broker. Jobs cannot be accepted.")


def test_label_values_do_not_grow_with_what_clients_ask_for(gateway: Server) -> None:
    """Ids, unknown paths and slashes at the end are counted under templates, or `none`."""
    for _ in range(3):
        for path in (f"/jobs/{uuid7()}", f"/jobs/{uuid7()}/", f"/{uuid7()}", f"/jobs/{uuid7()}/artifacts/{uuid7()}"):
            http_client.get(gateway.url + path)
    http_client.request("BREW", gateway.url + "/jobs")
    families = text_string_to_metric_families(http_client.get(f"{gateway.url}/metrics").text)
    requests = next(family for family in families if family.name == "http_requests")
    handlers = {sample.labels["handler"] for sample in requests.samples}
    assert {"/jobs/{job_id}", "/jobs/{job_id}/artifacts/{name}", "none"} <= handlers
    assert not [handler for handler in handlers if re.search(r"[0-9a-f]{8}-", handler)]


def test_the_documentation_page_loads_nothing_from_elsewhere(gateway: Server) -> None:
    """Each file that the page names is served by the gateway, and its policy allows no other."""
    page = http_client.get(f"{gateway.url}/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 4
    for name in named:
        assert "//" not in name
        assert http_client.get(f"{gateway.url}/{name}").status_code == 200
    assert 'url: "openapi.json"' in http_client.get(f"{gateway.url}/docs/start.js").text
    assert http_client.get(f"{gateway.url}/openapi.json").json()["openapi"] == "3.1.0"


@pytest.mark.parametrize("name", ["../api/http/docs.py", "..%2fcore.py", "redoc.standalone.js", "swagger-ui.css%00"])
def test_only_the_pages_own_files_are_served(gateway: Server, name: str) -> None:
    """No other file of the package, or of the machine, can be asked for."""
    assert http_client.get(f"{gateway.url}/docs/{name}").status_code in (404, 422)
