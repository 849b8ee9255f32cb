"""A record that cannot be read: it is shown as damaged, and takes nothing else down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.history import fields_between
from shared.ledger.ids import time_floor
from shared.ledger.keys import key
from shared.ledger.operations import AboutWorker, Presence
from tests.support.ledgers import claimed, tended
from tests.support.servers.services import BOUND_S, gateway_server

if TYPE_CHECKING:
    from tests.support.servers.services import Server

BODY = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}}


def without(*names: str) -> Callable[[redis.Redis, str], Any]:
    return lambda client, job_id: client.hdel(key("job", job_id), *names)


def having(**fields: str) -> Callable[[redis.Redis, str], Any]:
    return lambda client, job_id: [client.hset(key("job", job_id), name, value) for name, value in fields.items()]


def another_type(client: redis.Redis, job_id: str) -> None:
    client.delete(key("job", job_id))
    client.lpush(key("job", job_id), "x")


DAMAGE: dict[str, Callable[[redis.Redis, str], Any]] = {
    "no state": without("state"),
    "no kind and queue": without("kind", "queue"),
    "one field left": lambda client, job_id: client.delete(key("job", job_id)) and having(tags="[]")(client, job_id),
    "tags": having(tags="x"),
    "params": having(params="{"),
    "created_at": having(created_at="yesterday"),
    "far away": having(created_at="9" * 18),
    "another state": having(state="elsewhere"),
    "attempts": having(attempts='[{"attempt": 1}]', progress="7"),
    "steps": having(steps="{"),
    "no step": having(steps='["nobody", 7]', total="x"),
    "another type": another_type,
}


@pytest.fixture(scope="module")
def gateway(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("damaged")
    env = {"CELERY_BROKER_URL": own_valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with gateway_server(folder, **env) as server, httpx.Client(base_url=server.url, timeout=BOUND_S) as client:
        yield client


@pytest.fixture
def book(own_valkey: Server) -> Iterator[Ledger]:
    with redis.Redis(port=own_valkey.port, decode_responses=True) as client:
        client.flushall()
        yield Ledger(client)


def submit(gateway: httpx.Client) -> str:
    return str(gateway.post("/jobs", json=BODY | {"options": {"tags": ["t"]}}).json()["id"])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_shown_as_such_and_hides_no_other(gateway: httpx.Client, book: Ledger, damage: str) -> None:
    """In lists, by itself, in calls for many, in the rounds of the keeper, for workers, metrics and reports."""
    first, bad, last = (submit(gateway) for _ in range(3))
    for job_id in (first, bad):
        claimed(book, job_id)
    presence = Presence(book, owner="w1", lease_s=60)
    about = AboutWorker("w1@h", "h", 1, ("etl",), 2, 1, {"celeriac": "1", "celery": "5", "python": "3"})
    presence.heartbeat(about, queues=["etl"], jobs=[first, bad])
    DAMAGE[damage](book.client, bad)

    for query in ({}, {"tag": "t"}, {"queue": "etl"}, {"page_size": 1}):
        jobs, damaged = listed(gateway, **query)
        assert [job_id for job_id in jobs if job_id != bad] == [last, first], query
        assert (bad in jobs) != (damaged == [bad]), query  # what a list shows of it may be whole
    for path in ("/logs", "/artifacts"):
        answer = gateway.get(f"/jobs/{bad}{path}")
        shown = (answer.status_code, answer.json().get("code") if answer.status_code != 200 else None)
        assert shown in {(409, "damaged_record"), (200, None)}
    assert gateway.get(f"/jobs/{bad}").status_code == 409
    answer = gateway.post("/jobs/cancel", json={"filter": {"tag": "t"}, "dry_run": True})
    assert {*answer.json()["cancelled"], *answer.json()["requested"]} - {bad} == {first, last}
    assert gateway.post("/jobs/cancel", json={"ids": [bad, last], "dry_run": True}).json()["cancelled"][-1:] == [last]
    (worker,) = gateway.get("/workers").json()["workers"]
    assert first in {job["id"] for job in worker["active"]}
    assert "celeriac_jobs" in gateway.get("/metrics").text
    assert book.renew([first, bad], owner="w1", lease_s=60)[first] == "ok"
    assert not [what for what in tended(book) if what[0] == "failed"]
    everything = fields_between(book.client, ["id"], lower_id=time_floor(0), upper_id=time_floor(2**47))
    assert {first, last} <= {values[0] for values in everything}
    assert book.call("clean", {"ids": [bad, first], "older_than_ms": 0, "dry_run": True})[1] == ["live"]

    assert gateway.delete(f"/jobs/{bad}").status_code == 204
    assert (gateway.get(f"/jobs/{bad}").status_code, gateway.delete(f"/jobs/{bad}").status_code) == (410, 410)
    assert listed(gateway) == ([last, first], [])
    assert gateway.get(f"/jobs/{first}").json()["state"] == "running"


def listed(gateway: httpx.Client, **query: Any) -> tuple[list[str], list[str]]:
    """Return the ids of the jobs of a list, and of the damaged ones."""
    jobs: list[str] = []
    damaged: list[str] = []
    token = ""
    while token is not None:
        page = gateway.get("/jobs", params=query | ({"page_token": token} if token else {}))
        assert page.status_code == 200, page.text
        jobs += [job["id"] for job in page.json()["jobs"]]
        damaged += [job["id"] for job in page.json()["damaged"]]
        token = page.json()["next_page_token"]
    return jobs, damaged


def test_an_event_that_cannot_be_read_hides_no_other(gateway: httpx.Client, book: Ledger) -> None:
    """The stream and the log go on after it; where the events are not a stream, the answer says so."""
    job_id = submit(gateway)
    token = claimed(book, job_id).token
    for fields in (
        {"event": "log"},
        {"event": "log", "at": "x", "data": "{"},
        {"event": "state", "at": "1", "data": "7"},
    ):
        book.client.xadd(key("events", job_id), fields)  # type: ignore[arg-type]  # invariant
    line = {"at": "2026-01-31T12:00:00+00:00", "level": "info", "message": "here", "fields": {}}
    book.progress(job_id, token=token, progress=None, logs=[json.dumps(line), '{"level": 7}'])
    book.succeed(job_id, token=token, result="{}")
    text = gateway.get(f"/jobs/{job_id}/events").text
    assert (text.count("event: damaged"), "here" in text, '"state": "succeeded"' in text) == (2, True, True)
    lines = gateway.get(f"/jobs/{job_id}/logs").json()["lines"]
    assert [each["message"] for each in lines] == ["here", "Unreadable line."]
    book.client.delete(key("events", job_id))
    book.client.set(key("events", job_id), "x")
    answer = gateway.get(f"/jobs/{job_id}/logs")
    assert (answer.status_code, answer.json()["code"]) == (409, "damaged_record")
    assert gateway.get(f"/jobs/{job_id}/events").status_code in {200, 409}
