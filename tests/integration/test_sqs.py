"""Amazon SQS as the broker: moto's server, which has its API and its visibility timeouts."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from cli.doctor.servers import of_broker
from shared.broker.settings import BrokerSettings
from shared.ledger.keys import key
from tests.support.servers.services import Server, free_port, gateway_server, http_client, wait_for
from tests.support.servers.sqs import require_moto, sqs_server
from tests.support.servers.workers import ACME, ACME_ALONE, Crew, Jobs
from tests.support.up import STOP_BOUND_S, running_up, write_own_kind

pytestmark = pytest.mark.integration

VISIBILITY_TIMEOUT_S = 2


@pytest.fixture(scope="module")
def sqs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    require_moto()
    with sqs_server(tmp_path_factory.mktemp("sqs") / "moto") as url:
        yield url


@pytest.fixture(scope="module")
def service(valkey: Server, sqs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Run a gateway and a worker of two processes."""
    folder = tmp_path_factory.mktemp("service")
    env = {
        **ACME_ALONE,
        "AWS_DEFAULT_REGION": "us-east-1",
        "CELERY_BROKER_URL": sqs,
        "CELERIAC_LEDGER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_TASK_EVENTS": "false",
        "CELERIAC_VISIBILITY_TIMEOUT_S": str(VISIBILITY_TIMEOUT_S),
    }
    with redis.Redis.from_url(valkey.redis_url) as ledger:
        ledger.flushall()
    workers = Crew(folder, env)
    with gateway_server(folder / "gateway", **env | ACME) as gateway:
        try:
            workers.start(concurrency=2)
            yield Jobs(gateway)
        finally:
            workers.end()


@pytest.fixture
def ledger(valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.redis_url, decode_responses=True) as client:
        yield client


def note(notebook: Path, **params: Any) -> dict[str, Any]:
    return {"kind": "acme.take_note", "params": {"notebook": str(notebook), **params}}


def test_jobs_retries_and_every_canvas_run(service: Jobs, tmp_path: Path) -> None:
    n = tmp_path / "n"
    copied = {"kind": "acme.copy_note", "params": {"notebook": str(tmp_path / "copied")}}
    bound = {"kind": "acme.bind_notes", "params": {"notebook": str(tmp_path / "bound")}}
    mapped = {"kind": "acme.take_note", "parameter": "notebook"}
    starred = {"kind": "acme.take_note", "parameters": ["notebook", "lasts_s"]}
    paths = [str(tmp_path / f"item {number}") for number in range(3)]
    asked = {
        "single": service.submit("acme.take_note", {"notebook": str(n)}),
        "retry": service.submit("acme.take_note", {"notebook": str(n), "behave": "flaky"}),
        "chain": service.submit("workflow.chain", {"steps": [note(n), copied]}),
        "group": service.submit("workflow.group", {"steps": [note(n), note(n)]}),
        "chord": service.submit("workflow.chord", {"header": [note(n), note(n)], "body": bound}),
        "map": service.submit("workflow.map", {**mapped, "items": paths}),
        "starmap": service.submit("workflow.starmap", {**starred, "items": [[paths[0], 0.1]]}),
        "chunks": service.submit(
            "workflow.chunks", {**starred, "items": [[path, 0] for path in paths], "chunk_size": 2}
        ),
    }
    ended = {name: service.ended(job_id) for name, job_id in asked.items()}
    assert {name: job["state"] for name, job in ended.items()} == dict.fromkeys(asked, "succeeded")
    assert len(ended["retry"]["attempts"]) > 1


def test_the_doctor_sees_it(sqs: str, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for the queues; where nothing answers, it says so."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (well,) = of_broker(BrokerSettings(broker_url=sqs, ledger_url=valkey.redis_url), ledger_answers=True)
    assert (well.outcome, well.message.startswith("Amazon SQS at sqs://")) == ("ok", True), well
    away = f"sqs://key:hunter2@127.0.0.1:{free_port()}"
    (refused,) = of_broker(BrokerSettings(broker_url=away, ledger_url=valkey.redis_url), ledger_answers=True)
    assert (refused.outcome, "hunter2" in repr(refused)) == ("fail", False), refused


def waiting(sqs: str, queue: str = "etl") -> list[int]:
    """Return how many messages are on a queue: visible, delivered, delayed."""
    client: Any = boto3.client(
        "sqs",
        endpoint_url=sqs.replace("sqs://key:secret@", "http://"),
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - of nothing
    )
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return [int(found[f"ApproximateNumberOfMessages{which}"]) for which in ("", "NotVisible", "Delayed")]


def test_a_delay_of_more_than_15_minutes_is_the_keepers(
    service: Jobs, sqs: str, ledger: redis.Redis, tmp_path: Path
) -> None:
    """SQS delays a message by 900 s at most: this one is not sent before its time has come."""
    wait_for(lambda: waiting(sqs) == [0, 0, 0], "an empty queue")
    job_id = service.submit("acme.take_note", {"notebook": str(tmp_path / "n")}, delay_s=1_200)
    assert service.get(job_id)["state"] == "scheduled"
    assert (waiting(sqs), ledger.zscore(key("outbox"), job_id)) == ([0, 0, 0], None)
    ledger.zadd(key("due"), {job_id: 1}, xx=True)
    assert service.ended(job_id)["state"] == "succeeded"


def test_a_job_that_outlasts_the_visibility_timeout_runs_once(service: Jobs, sqs: str, tmp_path: Path) -> None:
    """SQS delivers its message again meanwhile, which the claim refuses; in the end none is left."""
    notebook = tmp_path / "n"
    job = service.ended(
        service.submit("acme.take_note", {"notebook": str(notebook), "lasts_s": 3 * VISIBILITY_TIMEOUT_S})
    )
    assert (job["state"], len(job["attempts"]), len(notebook.read_text().splitlines())) == ("succeeded", 1, 1)
    wait_for(lambda: waiting(sqs) == [0, 0, 0], "an empty queue")


def test_up_starts_on_it_and_stops_in_time(sqs: str, valkey: Server, tmp_path: Path) -> None:
    environment = {
        **write_own_kind(tmp_path),
        "AWS_DEFAULT_REGION": "us-east-1",
        "CELERY_BROKER_URL": sqs,
        "CELERY_RESULT_BACKEND": valkey.redis_url,
        "CELERIAC_TASK_EVENTS": "false",
        "CELERIAC_PREFIX": "team-",
    }
    with running_up(tmp_path / "data", environment) as up:
        job = {"kind": "acme.shout_text", "params": {"text": "hello"}}
        url = f"{up.url}/jobs/{http_client.post(f'{up.url}/jobs', json=job).json()['id']}"
        assert http_client.get(url, params={"wait_s": 30}, timeout=60).json()["state"] == "succeeded"
        wait_for(lambda: sum(waiting(sqs, "team-acme")) == 0, "the acknowledgement on a queue with the prefix")
        asked_at = time.monotonic()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(STOP_BOUND_S) == 0, up.said
        assert time.monotonic() - asked_at < 20
    assert "Traceback" not in up.said
