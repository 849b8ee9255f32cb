"""Callbacks over a gateway, real workers and a real receiver."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook

from shared.ledger.keys import key
from tests.support.servers.receivers import Receiver, receiving
from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, Jobs, crew

pytestmark = pytest.mark.integration

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def slow() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callbacks")


@pytest.fixture(scope="module")
def jobs(folder: Path, valkey: Server, receiver: Receiver, slow: Receiver) -> Iterator[Jobs]:
    """Run a gateway and a worker that may call the receivers back, each of them in one of its two processes."""
    env = {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_WEBHOOK_SECRET": SECRET,
        "CELERIAC_HTTP_ALLOW_HOSTS": f"127.0.0.1:{receiver.port},127.0.0.1:{slow.port}",
        "CELERIAC_CALLBACKS_PER_HOST": "1",
        **ACME,
    }
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        workers.start(
            concurrency=2, WORKER_FAMILIES="callbacks", CELERIAC_CONTRACTS="shared.jobs.callbacks,tests.acme.contracts"
        )
        yield Jobs(gateway)


def callbacks_of(jobs: Jobs, job_id: str) -> list[dict[str, Any]]:
    """Return the jobs that tell the end of this one."""
    listed = http_client.get(f"{jobs.gateway.url}/jobs", params={"tag": "callback"}).json()["jobs"]
    return [job for job in map(jobs.get, (one["id"] for one in listed)) if job["params"] == {"job_id": job_id}]


def test_a_callback_is_tried_again_until_it_is_taken(
    jobs: Jobs, receiver: Receiver, folder: Path, valkey: Server
) -> None:
    """A receiver that fails twice gets the same message three times, each signed again, and then no more."""
    receiver.answers += [(500, {}), (503, {})]
    job_id = jobs.submit("acme.take_note", {"notebook": str(folder / "n")}, callback_url=receiver.url, tags=["nightly"])
    (callback,) = wait_for(lambda: callbacks_of(jobs, job_id), "a callback")
    with redis.Redis(port=valkey.port) as client:
        for attempt in (1, 2):
            wait_for(lambda attempt=attempt: len(receiver.got) == attempt, f"attempt {attempt}")  # type: ignore[misc]
            jobs.in_state(callback["id"], "retrying")
            client.zadd(key("due"), {callback["id"]: 1})  # as if the wait were over
            client.hset(key("job", callback["id"]), "due_at", 1)
    delivered = jobs.ended(callback["id"])
    assert (delivered["state"], delivered["attempt"], delivered["result"]["http_status"]) == ("succeeded", 3, 204)
    told = [Webhook(SECRET).verify(body, headers) for headers, body in receiver.got]
    assert [one["type"] for one in told] == ["job.succeeded"] * 3
    assert told[0]["data"]["id"] == job_id
    assert told[0]["data"]["result"] == jobs.get(job_id)["result"]
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1
    assert len(callbacks_of(jobs, job_id)) == 1


def test_a_workflow_calls_back_once_and_tells_its_failure(jobs: Jobs, receiver: Receiver, folder: Path) -> None:
    """No step has a callback of its own; the job's end has the failed step's error."""
    receiver.got.clear()
    params = {"notebook": str(folder / "n"), "copybook": str(folder / "c"), "behave": "badly"}
    job_id = jobs.submit("acme.note_twice", params, callback_url=receiver.url)
    (callback,) = wait_for(lambda: callbacks_of(jobs, job_id), "a callback")
    assert jobs.ended(callback["id"])["state"] == "succeeded"
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["job.failed"]
    assert json.loads(receiver.got[0][1])["data"]["error"]["step"] == "note"
    assert len(callbacks_of(jobs, job_id)) == 1


def test_a_receiver_that_does_not_answer_holds_up_only_its_own(
    jobs: Jobs, receiver: Receiver, slow: Receiver, folder: Path
) -> None:
    """8 callbacks wait for it, one at a time, and say so; one to another port of the same address passes them."""
    receiver.got.clear()
    slow.may_answer.clear()
    held = [jobs.submit("acme.take_note", {"notebook": str(folder / "n")}, callback_url=slow.url) for _ in range(8)]
    callbacks = [wait_for(lambda one=one: callbacks_of(jobs, one), "its callback", bound_s=60)[0] for one in held]  # type: ignore[misc]
    wait_for(lambda: slow.waiting == 1, "one of them is sent", bound_s=60)
    wait_for(
        lambda: [jobs.get(one["id"])["waiting_reason"] for one in callbacks].count("concurrency_limited") >= 6,
        "the others wait for their turn",
        bound_s=60,
    )
    jobs.submit("acme.take_note", {"notebook": str(folder / "n")}, callback_url=receiver.url)
    wait_for(lambda: len(receiver.got) == 1, "the other receiver has its callback", bound_s=60)
    assert (slow.waiting, slow.most_waiting) == (1, 1)
    slow.may_answer.set()

    def states() -> set[str]:
        return {jobs.get(one["id"])["state"] for one in callbacks}

    wait_for(lambda: states() <= {"succeeded", "retrying"}, "the others had their turn", bound_s=60)
    assert "succeeded" in states()


def test_the_limit_of_a_receiver_holds_whoever_submits_a_callback(jobs: Jobs, slow: Receiver, folder: Path) -> None:
    """Also for jobs and steps that a client submits, with or without a concurrency key of its own."""
    slow.may_answer.clear()
    wait_for(lambda: slow.waiting == 0, "no callback of another test")
    slow.most_waiting = 0
    told = jobs.submit("acme.take_note", {"notebook": str(folder / "n")}, callback_url=slow.url)
    wait_for(lambda: slow.waiting == 1, "the callback of the service")
    tell: dict[str, Any] = {"kind": "maintenance.deliver_callback", "params": {"job_id": told}}
    by_hand = [jobs.submit(**tell), jobs.submit(**tell, concurrency_key="mine", concurrency_limit=9)]
    by_hand += [jobs.submit("workflow.group", {"steps": [tell, tell]})]

    def reasons() -> list[str]:
        return [jobs.get(one)["waiting_reason"] for one in by_hand]

    wait_for(lambda: reasons() == ["concurrency_limited"] * 3, "all of them wait", bound_s=60)
    slow.may_answer.set()
    assert [jobs.ended(one)["state"] for one in by_hand] == ["succeeded"] * 3
    assert slow.most_waiting == 1


def test_a_map_of_callbacks_is_refused(jobs: Jobs, receiver: Receiver, folder: Path) -> None:
    """It would send them without asking for a place; the failure says what to do instead."""
    receiver.got.clear()
    told = jobs.submit("acme.take_note", {"notebook": str(folder / "n")}, callback_url=receiver.url)
    wait_for(lambda: len(receiver.got) == 1, "the callback")
    params = {"kind": "maintenance.deliver_callback", "parameter": "job_id", "items": [told, told]}
    job = jobs.ended(jobs.submit("workflow.map", params))
    assert (job["state"], job["error"]["code"]) == ("failed", "not_for_maps")
    assert "steps of a group" in job["error"]["remedy"]
    assert len(receiver.got) == 1


def test_a_callback_to_an_internal_address_is_refused_at_submission(jobs: Jobs, receiver: Receiver) -> None:
    """Only the port that the operator listed may be called; the answer names the field."""
    url = f"http://127.0.0.1:{receiver.port + 1}/"
    body = {"kind": "acme.take_note", "params": {"notebook": "n"}, "options": {"callback_url": url}}
    answer = http_client.post(f"{jobs.gateway.url}/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/options/callback_url"
    assert "CELERIAC_HTTP_ALLOW_HOSTS" in answer.json()["errors"][0]["message"]


def test_an_end_that_was_missed_can_be_told_again(jobs: Jobs, receiver: Receiver, folder: Path) -> None:
    """Whoever submits the kind by hand sends the same message to the same URL."""
    receiver.got.clear()
    job_id = jobs.submit("acme.take_note", {"notebook": str(folder / "n")}, callback_url=receiver.url)
    wait_for(lambda: len(receiver.got) == 1, "the callback")
    again = jobs.ended(jobs.submit("maintenance.deliver_callback", {"job_id": job_id}))
    assert again["state"] == "succeeded"
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1
