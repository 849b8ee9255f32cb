"""The FastAPI shop with its real server, a gateway and a worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.examples.shops import EXAMPLES, ShopService, forged, needs, ran, shop_service
from tests.support.servers.services import Server, answers, http_client, running, wait_for

pytestmark = pytest.mark.integration
FOLDER = EXAMPLES / "fastapi_shop"
_WITHOUT_LIFESPAN = """
from celeriac.fastapi import Celeriac
from fastapi import FastAPI
from fastapi.testclient import TestClient
app = FastAPI()
@app.get("/")
async def show(celeriac: Celeriac) -> None: ...
try:
    TestClient(app).get("/")
except RuntimeError as says:
    print(says)
"""


@pytest.fixture(scope="module")
def service(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopService]:
    needs("fastapi")
    with shop_service(tmp_path_factory.mktemp("fastapi_shop"), own_valkey) as made:
        yield made


@pytest.fixture(scope="module")
def shop(service: ShopService) -> Iterator[str]:
    """Run the shop; return its URL."""
    url = f"http://127.0.0.1:{service.port}"
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(FOLDER),
        "fastapi_shop:app",
        "--port",
        str(service.port),
    ]
    ready = answers(f"{url}/openapi.json")
    with running(command, service.folder, port=service.port, ready=ready, env=service.environment):
        yield url


def test_an_order_gets_its_invoice_from_a_job(shop: str, service: ShopService) -> None:
    """It is submitted and waited for with the client of the application; the callback says its end, too."""
    order = {"order": 7, "prices_cents": [1200, 350]}
    accepted = [http_client.post(f"{shop}/orders", json=order) for _ in range(2)]
    assert [one.status_code for one in accepted] == [201, 201], accepted[0].text
    (job_id,) = {one.json()["job"] for one in accepted}
    invoice = http_client.get(f"{shop}/invoices/{job_id}", params={"wait_s": 30}).json()
    assert invoice == service.jobs.get(job_id)["result"]
    assert invoice["total_cents"] == 1550
    wait_for(lambda: http_client.get(f"{shop}/states/{job_id}").json() == "succeeded", "the callback")


def test_an_invoice_that_is_not_there_yet(shop: str, service: ShopService) -> None:
    """The failures of the client are answers of the application."""
    with service.paused():
        job_id = http_client.post(f"{shop}/orders", json={"order": 8, "prices_cents": [5]}).json()["job"]
        answer = http_client.get(f"{shop}/invoices/{job_id}")
        assert (answer.status_code, "did not end" in answer.text) == (409, True)
    assert http_client.post(f"{shop}/orders", json={"order": 0, "prices_cents": []}).status_code == 422


def test_a_forged_callback_is_refused(shop: str) -> None:
    """Another secret, another body, an old one, and what does not even look like a signature."""
    told = {"id": "forged", "kind": "shop.write_invoice", "state": "succeeded"}
    for body, headers in forged(told):
        answer = http_client.post(f"{shop}/celeriac/callbacks", content=body, headers=headers)
        assert answer.status_code == 401
    assert http_client.get(f"{shop}/states/forged").json() is None


def test_an_application_without_the_lifespan_says_what_is_missing(service: ShopService) -> None:
    """At the first request that wants the client."""
    done = ran([sys.executable, "-W", "ignore", "-c", _WITHOUT_LIFESPAN], service.folder, service.environment)
    assert "Write FastAPI(lifespan=celeriac.fastapi.lifespan)" in done.stdout, done.stderr
