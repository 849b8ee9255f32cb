"""A database as result backend: what ends gets its rows, through outages and kills, and is shown from them later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME, ACME_ALONE, Crew, Jobs, crew

pytestmark = pytest.mark.integration


class Service:
    """A gateway and workers with a result database."""

    def __init__(self, gateway: Server, workers: Crew, ledger: redis.Redis, url: str) -> None:
        self.gateway = gateway
        self.workers = workers
        self.jobs = Jobs(gateway)
        self.ledger = ledger
        self._url = url

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self._url) as connection:
            return connection.execute(query.encode()).fetchall()

    def status_of(self, job_id: str) -> int:
        return http_client.get(f"{self.gateway.url}/jobs/{job_id}").status_code

    def all_written(self) -> None:
        wait_for(lambda: not self.ledger.exists(key("rows"), key("rows_deleted")), "the rows")

    def forgets(self, *job_ids: str) -> None:
        """Let the retention of these jobs end."""
        self.ledger.zadd(key("ended"), dict.fromkeys(job_ids, 1))
        wait_for(lambda: all(self.ledger.zscore(key("gone"), job_id) for job_id in job_ids), "the end of retention")


@pytest.fixture
def service(own_valkey: Server, postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    env = {
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERY_RESULT_BACKEND": f"db+{postgres_url}",
        "CELERIAC_STORE_URL": str(tmp_path / "store"),
    }
    with (
        redis.Redis(port=own_valkey.port, decode_responses=True) as ledger,
        crew(tmp_path / "workers", **env, **ACME_ALONE) as workers,
        gateway_server(tmp_path / "gateway", **env, **ACME) as gateway,
    ):
        yield Service(gateway, workers, ledger, postgres_url)


def test_every_job_gets_its_rows_and_is_shown_from_them_once_the_ledger_has_forgotten_it(
    service: Service, tmp_path: Path
) -> None:
    """However it ended: at first or later, as a workflow, before or after it started, by whomever."""
    jobs, notebook = service.jobs, str(tmp_path / "notes.txt")
    early = jobs.submit("acme.take_note", {"notebook": notebook}, delay_s=600)
    jobs.cancel(early)  # no worker has started yet: it is the gateway that asks for rows
    late = jobs.submit("acme.take_note", {"notebook": notebook}, expires_in_s=0.1)
    service.workers.start(queues="etl,report", concurrency=2)
    ids = {
        "cancelled": early,
        "succeeded": jobs.submit("acme.take_note", {"notebook": notebook}, tags=["night"]),
        "retried": jobs.submit("acme.take_note", {"notebook": notebook, "behave": "flaky"}),
        "failed": jobs.submit("acme.take_note", {"notebook": notebook, "behave": "badly"}),
        "expired": late,
        "workflow": jobs.submit("acme.note_twice", {"notebook": notebook, "copybook": str(tmp_path / "copies.txt")}),
        "failed workflow": jobs.submit(
            "acme.note_twice", {"notebook": notebook, "copybook": str(tmp_path / "c.txt"), "behave": "badly"}
        ),
    }
    shown = {name: jobs.ended(job_id) for name, job_id in ids.items()}
    assert [shown[name]["state"] for name in ("cancelled", "expired", "workflow")] == [
        "cancelled",
        "expired",
        "succeeded",
    ]
    service.all_written()
    states = dict(service.rows("SELECT id, state FROM celeriac_jobs WHERE job_id IS NULL"))
    assert states == {ids[name]: job["state"] for name, job in shown.items()}
    steps = service.rows("SELECT step, state FROM celeriac_jobs WHERE job_id IS NOT NULL ORDER BY step, state")
    assert steps == [("copy", "skipped"), ("copy", "succeeded"), ("note", "failed"), ("note", "succeeded")]
    attempts = service.rows("SELECT outcome, job_id FROM celeriac_attempts ORDER BY attempt")
    outcomes = [outcome for outcome, job_id in attempts if job_id == ids["retried"]]
    assert outcomes == [attempt["outcome"] for attempt in shown["retried"]["attempts"]]
    assert outcomes[0] == "retrying"
    assert service.rows("SELECT count(*) FROM celery_taskmeta") == [(len(ids) + 4,)]
    joined = "SELECT tags->>0, result->>'line_count' FROM celeriac_jobs WHERE tags::text = '[\"night\"]'"
    assert service.rows(joined)[0][0] == "night"
    service.forgets(*ids.values())
    assert {name: jobs.get(job_id) for name, job_id in ids.items()} == shown
    step = shown["workflow"]["steps"][0]["id"]
    assert (service.status_of(step), service.status_of(uuid7())) == (404, 404)


def test_a_deleted_job_is_not_shown_from_its_rows(service: Service, tmp_path: Path) -> None:
    """410 from the answer to the deletion on, and the rows go; so they do if it is deleted before they are written."""
    service.workers.start(queues="etl")
    job_id = service.jobs.submit("acme.take_note", {"notebook": str(tmp_path / "notes.txt")})
    service.jobs.ended(job_id)
    service.all_written()
    assert service.rows("SELECT count(*) FROM celeriac_jobs") == [(1,)]
    assert http_client.delete(f"{service.gateway.url}/jobs/{job_id}").status_code == 204
    assert service.status_of(job_id) == 410
    service.all_written()
    assert service.status_of(job_id) == 410
    assert service.rows("SELECT count(*) FROM celeriac_jobs") == service.rows("SELECT count(*) FROM celery_taskmeta")
    assert service.rows("SELECT count(*) FROM celeriac_attempts") == [(0,)]


@contextmanager
def away(server: PostgresServer, database: str) -> Iterator[None]:
    """Have the server refuse this database, and end the connections that it has, while the block runs."""
    name = sql.Identifier(database)
    server.run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
    ended = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
    server.run(ended.format(sql.Literal(database)))
    yield
    server.run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def waiting_rows(gateway: Server) -> float:
    lines = http_client.get(f"{gateway.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("celeriac_rows_waiting ")))


def test_nothing_is_lost_while_the_database_is_away_and_the_worker_is_killed(
    service: Service, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """Jobs end as ever; their rows wait in the ledger, also after a kill, and come once each when it is back.

    An id that only the database could know is answered 503 meanwhile, and one that the ledger knows as ever.
    """
    worker = service.workers.start(queues="etl")
    params = {"notebook": str(tmp_path / "notes.txt")}
    before = service.jobs.submit("acme.take_note", params)
    service.jobs.ended(before)
    service.all_written()
    service.forgets(before)
    with away(postgres_server, postgres_url.rpartition("/")[2]):
        ids = [service.jobs.submit("acme.take_note", params) for _ in range(10)]
        assert {service.jobs.ended(job_id)["state"] for job_id in ids} == {"succeeded"}
        assert waiting_rows(service.gateway) == len(ids)
        unknown = http_client.get(f"{service.gateway.url}/jobs/{uuid7()}")
        assert (unknown.status_code, unknown.json()["code"]) == (503, "result_database_unavailable")
        assert int(unknown.headers["Retry-After"]) > 0
        assert service.status_of(before) == 503
        began = time.monotonic()
        assert service.status_of(ids[0]) == 200
        assert time.monotonic() - began < 2
        worker.kill()
        service.workers.start(queues="etl")
    service.all_written()
    written = service.rows("SELECT id, count(*) FROM celeriac_jobs GROUP BY id")
    assert sorted(written) == sorted((job_id, 1) for job_id in (before, *ids))
    assert service.rows("SELECT count(*), count(DISTINCT task_id) FROM celery_taskmeta") == [(11, 11)]
    assert waiting_rows(service.gateway) == 0
    wait_for(lambda: service.status_of(before) == 200, "the gateway's connection to the database")
    assert service.status_of(uuid7()) == 404
