"""What clients of a gateway are told while the ledger is frozen, restarted or full, and whether it is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from shared.ledger.client import Ledger
from shared.ledger.records import Claim
from tests.support.servers.cpu_waits import Stopwatch
from tests.support.servers.outages import RestartableValkey, frozen, restartable_valkey
from tests.support.servers.services import Server, gateway_server, http_client, wait_for
from tests.support.servers.workers import ACME_ALONE

pytestmark = pytest.mark.chaos

JOB = {"kind": "acme.take_note", "params": {"notebook": "/nowhere"}}
POOLED = 30


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[RestartableValkey, Server]]:
    with restartable_valkey(tmp_path / "valkey") as valkey:
        env = {**ACME_ALONE, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "store")}
        with gateway_server(tmp_path, **env) as gateway:
            yield valkey, gateway


def together(gateway: Server, calls: list[tuple[str, str, Any]]) -> list[tuple[httpx.Response, float]]:
    """Make calls at the same time; return the answers and how many seconds of their own each took."""

    def make(call: tuple[str, str, Any]) -> tuple[httpx.Response, float]:
        method, path, body = call
        watch = Stopwatch(gateway.process.pid)
        answer = http_client.request(method, gateway.url + path, json=body)
        return answer, watch.own_s

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(make, calls))


def connections_to(port: int) -> int:
    """Return how many TCP connections of this machine lead to the port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(f":{port:04X}") and state == "01" for _, _, remote, state, *_ in rows)


def tagged(tag: str) -> dict[str, Any]:
    return JOB | {"options": {"tags": [tag]}}


def count(gateway: Server, tag: str) -> int:
    answer = http_client.get(f"{gateway.url}/jobs", params={"tag": tag, "page_size": 200})
    return len(answer.json()["jobs"])


def test_every_client_of_a_frozen_ledger_has_a_true_answer_in_time(
    service: tuple[RestartableValkey, Server],
) -> None:
    """24 clients and 4 batches at once: each hears within 3 s, and what was told to have failed never appears."""
    valkey, gateway = service
    assert http_client.post(f"{gateway.url}/jobs", json=JOB).status_code == 202
    calls = [("POST", "/jobs", tagged(f"single-{n}")) for n in range(24)]
    calls += [("POST", "/jobs/batch", {"jobs": [tagged(f"batch-{n}")] * 200}) for n in range(4)]
    with frozen(valkey.pid):
        answers = together(gateway, calls)
    codes = Counter(answer.json()["code"] for answer, _ in answers)
    assert set(codes) <= {"ledger_unavailable", "outcome_unknown"}, codes
    assert codes["ledger_unavailable"] >= 2, codes  # those that were not sent while another call had no reply
    assert max(seconds for _, seconds in answers) < 3
    assert http_client.post(f"{gateway.url}/jobs", json=tagged("after")).status_code == 202
    wait_for(lambda: count(gateway, "after") == 1, "the ledger's return")
    tags = [f"single-{n}" for n in range(24)] + [f"batch-{n}" for n in range(4)]
    for (answer, _), tag in zip(answers, tags, strict=True):
        if answer.json()["code"] == "ledger_unavailable":
            assert count(gateway, tag) == 0


def test_no_change_is_made_after_its_answer(service: tuple[RestartableValkey, Server]) -> None:
    """Whoever is told that it is not known what became of a change sees it in what is there then, for good."""
    valkey, gateway = service
    batch = http_client.post(f"{gateway.url}/jobs/batch", json={"jobs": [JOB] * 6}).json()["jobs"]
    ids = [job["id"] for job in batch]
    hourly = {"name": "Hourly", "kind": JOB["kind"], "params": JOB["params"], "interval_s": 3_600}
    schedule = http_client.post(f"{gateway.url}/schedules", json=hourly).json()["id"]
    changes = [
        ("POST", f"/jobs/{ids[0]}/cancel", None),
        ("POST", "/jobs/cancel", {"ids": ids[1:4]}),
        ("PUT", f"/schedules/{schedule}", hourly | {"interval_s": 7_200}),
        ("POST", f"/schedules/{schedule}/pause", None),
        ("DELETE", f"/schedules/{schedule}", None),
        ("POST", "/schedules", hourly | {"name": "Another"}),
        ("POST", "/queues/etl/pause", None),
    ]
    with frozen(valkey.pid):
        answers = together(gateway, changes)
    assert {answer.json()["code"] for answer, _ in answers} <= {"ledger_unavailable", "outcome_unknown"}
    assert max(seconds for _, seconds in answers) < 3
    assert http_client.post(f"{gateway.url}/jobs", json=JOB).status_code == 202
    states = {http_client.get(f"{gateway.url}/jobs/{job_id}").json()["state"] for job_id in ids}
    schedules = http_client.get(f"{gateway.url}/schedules").json()["schedules"]
    queues = http_client.get(f"{gateway.url}/queues").json()["queues"]
    assert states == {"queued"}
    assert [(one["interval_s"], one["paused"]) for one in schedules] == [(3_600, False)]
    assert not any(queue["is_paused"] for queue in queues)


def test_no_request_fails_after_a_restart_of_the_ledger(service: tuple[RestartableValkey, Server]) -> None:
    """Each of 30 connections is broken; it is replaced when it is used."""
    valkey, gateway = service
    with ThreadPoolExecutor(1) as thread:
        with frozen(valkey.pid):
            waiting = thread.submit(together, gateway, [("GET", "/jobs", None)] * POOLED)
            wait_for(lambda: connections_to(valkey.port) >= POOLED, "connections")
        assert Counter(answer.status_code for answer, _ in waiting.result()) == {200: POOLED}
    valkey.kill()
    valkey.start()
    answers = together(gateway, [("GET", "/jobs", None)] * POOLED)
    answers += together(gateway, [("POST", "/jobs", JOB)] * POOLED)
    assert Counter(answer.status_code for answer, _ in answers) == {200: POOLED, 202: POOLED}


def test_a_full_ledger_drains_by_itself(service: tuple[RestartableValkey, Server]) -> None:
    """Submissions get 507 while all that was accepted has room to end, however small it is at first; a cancel, too."""
    valkey, gateway = service
    ids: list[str] = []

    def full() -> tuple[httpx.Response, httpx.Response] | None:
        """Return what it answers when full, else submit more. It has looked at its memory just before, for /readyz."""
        ready = http_client.get(f"{gateway.url}/readyz")
        answer = http_client.post(f"{gateway.url}/jobs/batch", json={"jobs": [JOB] * 100})
        ids.extend(job["id"] for job in answer.json().get("jobs", ()))
        return (ready, answer) if (ready.status_code, answer.status_code) == (503, 507) else None

    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + (4 << 20))
        ready, refused = wait_for(full, "507")
        assert len(ids) >= 200
        assert (refused.json()["code"], int(refused.headers["retry-after"]) > 0) == ("ledger_full", True)
        assert ready.json()["detail"][:12] == "Full: ledger"
        assert http_client.post(f"{gateway.url}/jobs/{ids[0]}/cancel").status_code == 200
        ledger = Ledger(client)
        for job_id in ids[1:]:
            claim = ledger.claim(job_id, owner="w", worker="w@host", lease_s=60, message="{}")
            assert isinstance(claim, Claim)
            ledger.succeed(job_id, token=claim.token, result='{"text": "X"}')
        client.config_set("maxmemory", "0")
        wait_for(lambda: http_client.post(f"{gateway.url}/jobs", json=JOB).status_code == 202, "room")
        assert http_client.get(f"{gateway.url}/readyz").status_code == 200
