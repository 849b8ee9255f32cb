"""The Flask shop with its real server, a gateway and a worker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.examples.shops import EXAMPLES, ShopService, forged, needs, ran, shop_service
from tests.support.servers.services import Server, answers, http_client, running, wait_for

pytestmark = pytest.mark.integration
FOLDER = EXAMPLES / "flask_shop"
FLASK = [sys.executable, "-m", "flask", "--app", "flask_shop"]


@pytest.fixture(scope="module")
def service(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopService]:
    needs("flask")
    with shop_service(tmp_path_factory.mktemp("flask_shop"), own_valkey) as made:
        yield made


@pytest.fixture(scope="module")
def environment(service: ShopService) -> dict[str, str]:
    """Return the environment of the shop, which finds its module wherever it starts."""
    path = f"{service.environment['PYTHONPATH']}:{FOLDER}"
    return {**service.environment, "PYTHONPATH": path, "SHOP_DATABASE": str(service.folder / "shop.sqlite3")}


@pytest.fixture(scope="module")
def shop(service: ShopService, environment: dict[str, str]) -> Iterator[str]:
    """Run the shop; return its URL."""
    url = f"http://127.0.0.1:{service.port}"
    command = [*FLASK, "run", "--port", str(service.port)]
    ready = answers(f"{url}/orders/0", 404)
    with running(command, service.folder, port=service.port, ready=ready, env=environment):
        yield url


def ended(shop: str, number: int) -> dict[str, Any]:
    """Return an order when a callback has said the end of its job."""

    def there() -> dict[str, Any] | None:
        order: dict[str, Any] = http_client.get(f"{shop}/orders/{number}").json()
        return order if order["state"] else None

    return wait_for(there, f"the end of order {number}")


def test_an_order_gets_its_invoice_from_a_job(shop: str, service: ShopService) -> None:
    """The callback reaches the function that is declared with `@celeriac.ended`."""
    answer = http_client.post(f"{shop}/orders", json={"prices_cents": [1200, 350]})
    assert answer.status_code == 201, answer.text
    order = ended(shop, answer.json()["order"])
    assert (order["job"], order["state"]) == (answer.json()["job"], "succeeded")
    assert service.jobs.get(order["job"])["result"]["uri"] == order["invoice"]
    failing = http_client.post(f"{shop}/orders", json={"prices_cents": []}).json()
    assert ended(shop, failing["order"])["state"] == "failed"


def test_a_forged_callback_is_refused(shop: str) -> None:
    """Another secret, another body, an old one, and what does not even look like a signature."""
    told = {
        "id": "01a2",
        "kind": "shop.write_invoice",
        "state": "succeeded",
        "tags": ["order:1"],
        "result": {"uri": "forged"},
    }
    for body, headers in forged(told):
        answer = http_client.post(f"{shop}/celeriac/callbacks", content=body, headers=headers)
        assert answer.status_code == 401
    assert http_client.get(f"{shop}/orders/1").json()["invoice"] != "forged"


def test_the_commands_submit_show_cancel_and_rerun(service: ShopService, environment: dict[str, str]) -> None:
    """`flask celeriac ...`, from a shell."""

    def flask(*words: str, **changed: str) -> str:
        done = ran([*FLASK, "celeriac", *words], service.folder, environment | changed)
        assert "Traceback" not in done.stderr
        return (done.stdout + done.stderr).strip()

    with service.paused():
        job_id = flask("submit", "shop.write_invoice", "--params", '{"order": 7, "prices_cents": [5]}')
        assert flask("cancel", job_id) == "cancelled"
    again = flask("rerun", job_id)
    state, result = flask("status", again, "--wait-s", "60").splitlines()
    assert state == f"{again}  shop.write_invoice  succeeded"
    assert json.loads(result.removeprefix("result: "))["total_cents"] == 5
    assert "/params/order" in flask("submit", "shop.write_invoice", "--params", '{"order": 0, "prices_cents": []}')
    assert "it is not a JSON object." in flask("submit", "shop.write_invoice", "--params", "[]")
    assert "does not respond" in flask("status", again, CELERIAC_URL="http://127.0.0.1:1", CELERIAC_RETRY_S="0")
