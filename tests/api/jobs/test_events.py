"""Events and logs over HTTP, from a gateway process; the test is the worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from tests.support.by_hand import PARTITIONED, HandRun, hand, stream, submitted, waiting_requests
from tests.support.servers.outages import restartable_valkey
from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for
from tests.support.servers.sockets import connections

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ledger(valkey: Server) -> Iterator[Ledger]:
    """Return the worker's side."""
    with hand(valkey.port) as worker_side:
        yield worker_side


@pytest.fixture
def run(gateway: Server, ledger: Ledger) -> HandRun:
    """Return a submitted job."""
    return submitted(gateway.url, ledger)


class Follower(threading.Thread):
    """Follows a job's events, as a client would."""

    def __init__(self, url: str, job: str, **options: Any) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self._events = stream(url, job, **options)
        self.start()

    def run(self) -> None:
        """Collect until the stream ends."""
        for event in self._events:
            self.seen.append(event)

    def names(self) -> list[str]:
        """Return the names of the events seen so far, states with their state."""
        return [
            f"{event['event']} {event['data']['state']}" if event.get("event") == "state" else event.get("event", "")
            for event in self.seen
        ]


def step_name(job: HandRun, index: int) -> str | None:
    record = job.ledger.read(job.id)
    return record.steps[index].step  # type: ignore[union-attr]  # it is there


def subscriptions(gateway: Server, valkey_port: int) -> int:
    """Return how many channels this gateway hears besides that of the keys: others may use the same Valkey.

    Celery's events are a pattern.
    """
    own = {port for port, to in connections(gateway.process.pid) if to == valkey_port}
    with redis.Redis(port=valkey_port) as client:
        subscribed = client.client_list(_type="pubsub")
    return sum(int(each["sub"]) for each in subscribed if int(each["addr"].rpartition(":")[2]) in own) - 1


def clients(gateway: Server) -> int:
    """Return how many connections of clients the gateway has open."""
    return sum(port == gateway.port for port, _ in connections(gateway.process.pid))


def test_a_stream_replays_then_follows_and_ends_by_itself(gateway: Server, run: HandRun) -> None:
    """What has happened comes first, then what happens, in order; the stream ends with the job."""
    follower = Follower(gateway.url, run.id)
    wait_for(lambda: follower.seen, "the replay")
    run.claim()
    run.progress(1, 2)
    wait_for(lambda: len(follower.seen) == 3, "progress as it happens")
    run.log("half way")
    run.succeed()
    follower.join(BOUND_S)
    assert follower.names() == ["state queued", "state running", "progress", "log", "state succeeded"]
    assert not follower.is_alive()
    progress, log = follower.seen[2]["data"], follower.seen[3]["data"]
    assert (progress["current"], progress["total"], progress["step"]) == (1, 2, None)
    assert (log["level"], log["message"]) == ("info", "half way")


def test_a_broken_stream_goes_on_after_the_last_event_seen(gateway: Server, run: HandRun) -> None:
    """`Last-Event-ID` gives what came after it and nothing twice; then 204 stops a browser's reconnecting."""
    run.claim()
    run.succeed()
    queued, running, succeeded = stream(gateway.url, run.id)
    rest = list(stream(gateway.url, run.id, headers={"Last-Event-ID": queued["id"]}))
    assert rest == [running, succeeded]
    last = {"Last-Event-ID": succeeded["id"]}
    assert http_client.get(f"{gateway.url}/jobs/{run.id}/events", headers=last).status_code == 204


def test_a_last_event_id_of_the_future_ends_with_the_job(gateway: Server, run: HandRun) -> None:
    """No event comes after it, and the stream ends nevertheless."""
    future = {"Last-Event-ID": "9999999999999-0"}
    with ThreadPoolExecutor() as pool:
        following = pool.submit(lambda: list(stream(gateway.url, run.id, headers=future)))
        wait_for(lambda: waiting_requests(gateway.url) == 1, "the stream")
        run.claim()
        run.succeed()
        assert following.result(BOUND_S) == []


def test_the_steps_of_a_workflow_are_told_apart_and_do_not_end_the_stream(gateway: Server, ledger: Ledger) -> None:
    """A step's final state is not the job's; every event of a step names it."""
    job = submitted(gateway.url, ledger, PARTITIONED)
    follower = Follower(gateway.url, job.id)
    first, second, _combine = job.steps()
    first.claim()
    first.succeed()
    wait_for(lambda: "state succeeded" in follower.names(), "the first step's end")
    assert follower.is_alive()
    second.claim()
    ledger.fail(second.id, token=second.token, error='{"code": "x", "message": "m", "remedy": "", "details": {}}')
    follower.join(BOUND_S)
    assert not follower.is_alive()
    ends = [(event["data"]["step"], event["data"]["state"]) for event in follower.seen if event["event"] == "state"]
    assert ends[-3:-1] == [(step_name(job, 1), "failed"), (None, "failed")]
    assert ends[-1] == (step_name(job, 2), "skipped")


def test_dropped_events_leave_a_mark(gateway: Server, run: HandRun) -> None:
    """A job keeps about 2000 events: a client that connects after more were written is told that some are missing."""
    first = next(stream(gateway.url, run.id))
    run.claim()
    run.log(*(str(number) for number in range(2500)))
    run.succeed()
    resumed = list(stream(gateway.url, run.id, headers={"Last-Event-ID": first["id"]}))
    assert [event["event"] for event in resumed[:2]] == ["trimmed", "log"]
    assert "id" not in resumed[0]
    assert [event["event"] for event in resumed].count("trimmed") == 1
    assert resumed[-1]["data"]["state"] == "succeeded"
    page = http_client.get(f"{gateway.url}/jobs/{run.id}/logs").json()
    assert page["is_trimmed"]


def test_a_long_log_is_not_taken_for_a_trimmed_one(gateway: Server, run: HandRun) -> None:
    """More than a page of events, all kept: no mark."""
    run.claim()
    run.log(*(str(number) for number in range(1200)))
    run.succeed()
    events = list(stream(gateway.url, run.id))
    assert (len(events), "trimmed" in [event["event"] for event in events]) == (1203, False)


def test_logs_come_in_pages_and_of_one_step(gateway: Server, ledger: Ledger) -> None:
    """Pages follow each other by `after`; `step` filters."""
    job = submitted(gateway.url, ledger, PARTITIONED)
    first, second, _combine = job.steps()
    for step in (first, second):
        step.claim()
        step.log(*(f"{step.id} {number}" for number in range(3)))
    url = f"{gateway.url}/jobs/{job.id}/logs"
    page = http_client.get(url, params={"limit": 4}).json()
    rest = http_client.get(url, params={"limit": 4, "after": page["next_after"]}).json()
    messages = [line["message"] for line in page["lines"] + rest["lines"]]
    assert messages == [f"{step.id} {number}" for step in (first, second) for number in range(3)]
    assert (len(page["lines"]), rest["next_after"], page["is_trimmed"]) == (4, None, False)
    of_second = http_client.get(url, params={"step": step_name(job, 1)}).json()
    assert [line["message"] for line in of_second["lines"]] == [f"{second.id} {number}" for number in range(3)]


@pytest.mark.parametrize("page", ["events", "logs", "artifacts", "artifacts/x.csv"])
def test_an_unknown_job_is_a_problem_before_any_stream(gateway: Server, page: str) -> None:
    """404 for an id that never was, 422 for what is not an id."""
    unknown = http_client.get(f"{gateway.url}/jobs/{uuid7()}/{page}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_job")
    assert unknown.headers["content-type"] == "application/problem+json"
    for wrong in ("1", "not-a-uuid", "%00", "..%2f..%2fetc%2fpasswd", "é", "a" * 5000):
        answer = http_client.get(f"{gateway.url}/jobs/{wrong}/{page}")
        assert answer.status_code in (404, 422), (wrong, answer.text)


def test_a_forgotten_job_is_gone(gateway: Server, run: HandRun, valkey: Server) -> None:
    """410 for a job past its retention."""
    with redis.Redis(port=valkey.port) as client:
        client.delete(key("job", run.id))
        client.zadd(key("gone"), {run.id: time.time() * 1000})
    answer = http_client.get(f"{gateway.url}/jobs/{run.id}/events")
    assert (answer.status_code, answer.json()["code"]) == (410, "expired_job")


@pytest.mark.parametrize("last", ["x", "-", "$", "1-", "1-1-1", "9" * 20, "0-0) COUNT", ""])
def test_a_wrong_last_event_id_is_refused(gateway: Server, run: HandRun, last: str) -> None:
    """What is not an event id is a 422 that names the header."""
    answer = http_client.get(f"{gateway.url}/jobs/{run.id}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "last-event-id")


def test_a_client_that_leaves_leaves_nothing_behind(gateway: Server, ledger: Ledger, valkey: Server) -> None:
    """Streams and waits that are cut off free their sockets, and the next change finds no stale waiter."""
    run = submitted(gateway.url, ledger)
    with httpx.Client(timeout=BOUND_S) as client:
        for _ in range(20):
            with client.stream("GET", f"{gateway.url}/jobs/{run.id}/events") as answer:
                next(answer.iter_lines())
            with pytest.raises(httpx.ReadTimeout):
                client.get(f"{gateway.url}/jobs/{run.id}", params={"wait_s": 30}, timeout=0.05)
    wait_for(lambda: clients(gateway) == 0, "the end of the connections")
    wait_for(lambda: waiting_requests(gateway.url) == 0, "the end of the waits")
    assert subscriptions(gateway, valkey.port) <= 1


def test_500_waiters_share_one_subscription(gateway: Server, ledger: Ledger, valkey: Server) -> None:
    """500 clients wait for one job; one subscription serves them all, and all are answered when it ends."""
    run = submitted(gateway.url, ledger)
    run.claim()

    async def all_wait() -> list[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=2 * BOUND_S, limits=limits) as client:
            asked = [asyncio.create_task(client.get(f"/jobs/{run.id}?wait_s=60")) for _ in range(500)]
            await asyncio.to_thread(wait_for, lambda: waiting_requests(gateway.url) == 500, "500 who wait")
            await asyncio.to_thread(wait_for, lambda: subscriptions(gateway, valkey.port), "the subscription")
            assert await asyncio.to_thread(subscriptions, gateway, valkey.port) == 1
            await asyncio.to_thread(run.succeed)
            return [answer.json()["state"] for answer in await asyncio.gather(*asked)]

    assert asyncio.run(all_wait()) == ["succeeded"] * 500


def test_streams_and_waits_survive_a_restart_of_the_broker(tmp_path: Path) -> None:
    """Valkey stops and comes back: the stream goes on and the waiter is answered when the job ends."""
    with restartable_valkey(tmp_path / "valkey") as valkey:
        env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "artifacts")}
        with gateway_server(tmp_path / "gateway", **env) as gateway:
            with hand(valkey.port) as ledger:
                run = submitted(gateway.url, ledger)
                run.claim()
            follower = Follower(gateway.url, run.id)
            answers: list[httpx.Response] = []
            url = f"{gateway.url}/jobs/{run.id}?wait_s=60"
            waiter = threading.Thread(target=lambda: answers.append(http_client.get(url)), daemon=True)
            waiter.start()
            wait_for(lambda: waiting_requests(gateway.url) == 2, "the stream and the waiter")
            wait_for(lambda: len(follower.seen) == 2, "the replay")
            wait_for(lambda: subscriptions(gateway, valkey.port) == 1, "the subscription")
            valkey.stop()
            valkey.start()
            with hand(valkey.port) as ledger:
                run.ledger = ledger
                run.succeed()
            follower.join(BOUND_S)
            waiter.join(BOUND_S)
            assert follower.names()[-1] == "state succeeded"
            assert [answer.json()["state"] for answer in answers] == ["succeeded"]


def test_a_gateway_that_is_told_to_stop_does_not_wait_for_its_streams(tmp_path: Path, valkey: Server) -> None:
    """SIGTERM ends open streams, so that the server can drain; clients reconnect elsewhere."""
    env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path)}
    with gateway_server(tmp_path, **env) as gateway, hand(valkey.port) as ledger:
        follower = Follower(gateway.url, submitted(gateway.url, ledger).id)
        wait_for(lambda: follower.seen, "the replay")
        gateway.process.terminate()
        assert gateway.process.wait(BOUND_S) is not None
        follower.join(BOUND_S)
        assert not follower.is_alive()
