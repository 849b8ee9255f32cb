"""The kinds on a real service."""

import io
import os
import signal
import time
from pathlib import Path

from PIL import Image

from acme_images.contracts import MakeAlbum, OrderForAll, OrderPrints, SimulateCooling


def test_an_album(celeriac_service, holiday):
    archives = [celeriac_service.store_file(holiday, f"{name}.zip").uri for name in ("may", "june")]
    job = celeriac_service.run(MakeAlbum(archives=archives, columns=3))
    assert [(step["name"], step["state"]) for step in job["steps"]] == [
        ("thumbnails_0", "succeeded"),
        ("thumbnails_1", "succeeded"),
        ("sheet", "succeeded"),
    ]
    assert (job["state"], job["result"]["count"]) == ("succeeded", 6)
    assert Image.open(io.BytesIO(celeriac_service.read_file(job["result"]["sheet"]["uri"]))).size == (384, 256)


def test_a_busy_shop_is_asked_again_and_orders_once(celeriac_service, shop):
    shop.busy = 2
    job = celeriac_service.run(OrderPrints(customer="c-1", album="holiday", count=3))
    assert (job["state"], job["result"]) == ("succeeded", {"order": "o-1", "attempts": 3})
    again = celeriac_service.run(OrderPrints(customer="c-1", album="holiday", count=3))
    assert again["result"]["order"] == "o-1"
    assert len(shop.orders) == 1


def test_orders_for_all(celeriac_service, shop):
    job = celeriac_service.run(OrderForAll(customers=["c-1", "c-2"], album="sea"))
    assert (job["state"], job["result"]) == ("succeeded", {"succeeded_count": 2, "failed_count": 0})


def test_a_simulation_survives_its_worker(celeriac_service):
    job_id = celeriac_service.submit(SimulateCooling(step_count=60_000))
    wait_until(lambda: celeriac_service.call("GET", f"/jobs/{job_id}")["progress"] is not None)
    (worker,) = celeriac_service.call("GET", "/workers")["workers"]
    for child in Path(f"/proc/{worker['pid']}/task/{worker['pid']}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    job = celeriac_service.ended(job_id, within_s=120)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert job["result"]["resumed_at"] > 0


def wait_until(condition, within_s=60.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
