"""What a real worker does with messages that it cannot read, and with those of kinds that it does not have."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from shared.broker.messages import Composer, MessageOptions
from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Claim
from tests.acme.contracts import TakeNote
from tests.support.mutations import POISON, Message, mutated
from tests.support.servers.services import BOUND_S, Server, gateway_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, Worker, crew

pytestmark = pytest.mark.integration

ETL = "etl\x06\x165"  # kombu's list of the default priority
FUZZED = int(os.environ.get("FUZZED", "300"))  # `make chaos`: 5,000, in about a minute
OLDER: dict[str, Any] = {"CELERIAC_TASKS": "tests.acme.older", "CELERIAC_CONTRACTS": "tests.acme.older"}


@pytest.fixture(scope="module")
def service(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jobs, Crew, Worker]]:
    folder = tmp_path_factory.mktemp("intake")
    env = {
        **ACME_ALONE,
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_UNKNOWN_KIND_S": "3",
    }
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        yield Jobs(gateway), workers, workers.start()


@pytest.fixture
def jobs(service: tuple[Jobs, Crew, Worker]) -> Jobs:
    return service[0]


@pytest.fixture
def worker(service: tuple[Jobs, Crew, Worker]) -> Worker:
    return service[2]


@pytest.fixture
def client(service: tuple[Jobs, Crew, Worker]) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(service[1].env["CELERY_BROKER_URL"], decode_responses=True) as client:
        yield client


def message(env: dict[str, str], notebook: Path, contract: Any = TakeNote) -> Message:
    """Return a right message of a job that the ledger does not know."""
    composer = Composer(BrokerSettings(broker_url=env["CELERY_BROKER_URL"]))
    params = json.dumps({"notebook": str(notebook)})
    text = composer.message(contract, uuid7(), params, MessageOptions(5, 60, 90), queue="etl")
    right: Message = json.loads(text)
    return right


def drained(client: redis.Redis) -> bool:
    """Return whether nothing waits on the list, and nothing is unacknowledged."""
    return not client.llen(ETL) and not client.hlen("unacked")


def dead(client: redis.Redis) -> list[dict[str, str]]:
    """Return the dead letters, oldest first."""
    found: Any = client
    return [found.hgetall(f"celeriac:dead_letter:{letter}") for letter in found.zrange("celeriac:dead_letters", 0, -1)]


def note(jobs: Jobs, notebook: Path) -> str:
    return jobs.submit("acme.take_note", {"notebook": str(notebook)})


def test_what_cannot_be_read_is_kept_and_the_worker_goes_on(
    jobs: Jobs, service: tuple[Jobs, Crew, Worker], client: redis.Redis, tmp_path: Path
) -> None:
    """Each kind of poison is taken off once, with its reason, and the jobs between are done."""
    good = []
    right = message(service[1].env, tmp_path / "never")
    for make in POISON.values():
        client.lpush(ETL, make(right))
        good.append(note(jobs, tmp_path / "n"))
    assert {jobs.ended(job_id)["state"] for job_id in good} == {"succeeded"}
    wait_for(lambda: drained(client), "everything taken off")
    letters = dead(client)
    assert len(letters) == len(POISON)
    assert {letter["reason"] for letter in letters} == {
        "not_json",
        "bad_envelope",
        "bad_headers",
        "bad_body",
        "refused",
    }
    assert {(letter["queue"], letter["worker"]) for letter in letters} == {("etl", "w0@test")}
    assert service[2].process.poll() is None
    assert not (tmp_path / "never").exists()


def test_no_mutation_ends_a_worker_or_hurts_a_neighbour(
    jobs: Jobs, service: tuple[Jobs, Crew, Worker], client: redis.Redis, tmp_path: Path
) -> None:
    """Some hundred messages with accidents between good jobs; the long form is in `make chaos`."""
    good = []
    for seed in range(FUZZED):
        client.lpush(ETL, mutated(message(service[1].env, tmp_path / "fuzzed"), seed))
        if seed % 15 == 0:
            good.append(note(jobs, tmp_path / "n"))
    wait_for(
        lambda: drained(client) or service[2].process.poll() is not None,
        "everything taken off",
        bound_s=60 + FUZZED / 20,
    )
    assert {jobs.ended(job_id)["state"] for job_id in good} == {"succeeded"}
    log = service[2].log.read_text()
    assert service[2].process.poll() is None
    assert "Unrecoverable" not in log


def test_a_kind_that_this_worker_does_not_have_waits_for_one_that_has_it(
    jobs: Jobs, service: tuple[Jobs, Crew, Worker], tmp_path: Path
) -> None:
    """Its message is put back, the worker's own jobs go on meanwhile, and no job fails that another worker can run."""
    _, workers, _ = service
    workers.start(queues="ml", CELERIAC_UNKNOWN_KIND_S="60", **OLDER)
    new = [jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")}, queue="ml") for _ in range(5)]
    wait_for(lambda: workers.workers[-1].log.read_text().count("put back") >= len(new), "all put back")
    assert {jobs.get(job_id)["state"] for job_id in new} == {"queued"}
    workers.start(queues="ml")
    assert [jobs.ended(job_id)["state"] for job_id in new] == ["succeeded"] * len(new)
    before = workers.workers[-2].log.read_text().count("put back")
    for _ in range(5):  # one by one, while both wait for messages: in step, the same worker got each a dozen times
        assert jobs.ended(jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")}, queue="ml"))
    assert workers.workers[-2].log.read_text().count("put back") - before < 20


def test_a_message_that_is_put_back_is_dropped_when_its_job_has_ended(
    jobs: Jobs, service: tuple[Jobs, Crew, Worker], client: redis.Redis, tmp_path: Path
) -> None:
    """But not where something follows a task that succeeded: its claim lets that go on."""
    _, workers, _ = service
    queue = "maintenance\x06\x165"
    alone = workers.start(queues="maintenance", CELERIAC_UNKNOWN_KIND_S="60", **OLDER)
    cancelled, first, last = (
        jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")}, queue="maintenance") for _ in range(3)
    )
    wait_for(lambda: alone.log.read_text().count("put back") >= 3, "all put back")
    ledger = Ledger(client)
    for job_id in (first, last):
        right = ledger.claim(job_id, owner="other", worker="other@test", lease_s=60, message="")
        assert isinstance(right, Claim)
        ledger.succeed(job_id, token=right.token, result="{}")
    assert jobs.cancel(cancelled) == httpx.codes.OK
    wait_for(lambda: not client.llen(queue) and not client.hlen("unacked"), "the messages are dropped")
    assert alone.log.read_text().count("is dropped") == 3
    goes_on = message(workers.env, tmp_path / "n")
    chained = [[], {}, {"callbacks": None, "errbacks": None, "chain": [{"task": "x"}], "chord": None}]
    goes_on["body"] = base64.b64encode(json.dumps(chained).encode()).decode()
    goes_on["headers"]["id"], goes_on["properties"]["delivery_info"]["routing_key"] = first, "maintenance"
    client.lpush(queue, json.dumps(goes_on))
    put_back = alone.log.read_text().count("put back")
    wait_for(lambda: alone.log.read_text().count("put back") >= put_back + 2, "it is put back again and again")
    assert alone.log.read_text().count("is dropped") == 3
    alone.stop()
    client.delete(queue)


def test_a_message_that_is_put_back_stays_the_latest_of_its_job(
    jobs: Jobs, service: tuple[Jobs, Crew, Worker], client: redis.Redis, tmp_path: Path
) -> None:
    """It keeps the number of its publication: else the keeper takes it for an old copy, and publishes the job again."""
    queue = "maintenance\x06\x165"
    job_id = jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")}, queue="maintenance")
    ledger = Ledger(client)
    ledger.claim(job_id, owner="gone", worker="gone@test", lease_s=60, message="")
    assert ledger.release(job_id, owner="gone") == "released"
    assert client.lpop(queue)  # the first copy
    service[1].start(queues="maintenance", CELERIAC_UNKNOWN_KIND_S="60", **OLDER)

    def put_back() -> list[Any]:
        on_list: Any = client.lrange(queue, 0, -1)
        unacked: Any = client.hvals("unacked")
        found = [*map(json.loads, on_list), *(json.loads(text)[0] for text in unacked)]
        own = [one["headers"] for one in found if one["headers"].get("id") == job_id]
        returned = [headers for headers in own if "celeriac_returned_since" in headers]
        return returned if len(returned) == 1 else []  # while it is put back once more, it is seen in both places

    (headers,) = wait_for(put_back, "the message is put back")
    assert headers["celeriac_publication"] == 2
    assert client.hget(key("job", job_id), "publishes") == "2"
    assert jobs.cancel(job_id) == httpx.codes.OK


def test_a_kind_that_no_worker_has_fails_in_the_end(
    jobs: Jobs, service: tuple[Jobs, Crew, Worker], tmp_path: Path
) -> None:
    """After a bounded time, with what to do."""
    _, workers, _ = service
    workers.start(queues="callbacks", **OLDER)
    job = jobs.ended(jobs.submit("acme.take_note", {"notebook": str(tmp_path / "n")}, queue="callbacks"))
    assert (job["state"], job["error"]["code"]) == ("failed", "not_runnable")
    assert job["error"]["message"] == "No worker that consumes this queue has the kind 'acme.take_note'."


def test_a_task_of_another_client_that_is_not_a_kind_fails_with_a_sentence(service: tuple[Jobs, Crew, Worker]) -> None:
    """Such as a misspelt one; Celery would say NotRegistered."""
    url = service[1].env["CELERY_BROKER_URL"]
    with Celery("somebody", broker=url, backend=url, set_as_current=False) as app:
        sent = app.send_task("acme.take_nite", queue="etl")
        with pytest.raises(Exception, match=r"has the kind 'acme.take_nite'.*Check the name and the queue"):
            sent.get(timeout=BOUND_S)
