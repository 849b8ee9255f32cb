"""The ledger as tests use it: entries, claims, and the passing of time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import redis
import redis.asyncio

from shared.ledger.aclient import AsyncLedger
from shared.ledger.client import Ledger
from shared.ledger.envelopes import composed
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Claim, Entry, Record, Refusal, Submission
from tests.support.servers.services import Server

T = TypeVar("T")
ERROR = json.dumps({"code": "boom", "message": "it broke", "remedy": "", "retryable": True, "details": {"rows": []}})
RESULT = json.dumps({"rows": [], "n": 1})
MAX_CRASHES = 3
LIST = "etl\x06\x165"  # of the queue and priority that `entry` has


def entry(**changes: Any) -> Entry:
    """Return a job with the gateway's form of a message, unless it is given another."""
    made = Entry(
        id=changes.pop("id", None) or uuid7(),
        kind="acme.shout_text",
        queue="etl",
        priority=4,
        params="{}",
        retention_ms=60_000,
        max_crashes=MAX_CRASHES,
        max_retries=2,
    )
    made = replace(made, **changes)
    return made if "message" in changes else replace(made, message=composed_for(made))


def composed_for(job: Entry) -> str:
    """Return a message in the gateway's form."""
    envelope = '1\n[330.0, 300.0]\n"gen1@host"\n"00000000-0000-0000-0000-000000000000"\n5'
    return composed(envelope, job_id=job.id, kind=job.kind, queue=job.queue, params=job.params)


@pytest.fixture
def client(empty_valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=empty_valkey.port, decode_responses=True) as made:
        yield made


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


def numbered(message: str | None, publication: int = 1) -> str:
    """Return a message as it lies on a list after this number of publications."""
    parts = json.loads(message or "")
    return json.dumps(parts | {"headers": {"celeriac_publication": publication, **parts["headers"]}})


def with_async(url: str, use: Callable[[AsyncLedger], Awaitable[T]], *, timeout_s: float = 2.0) -> T:
    """Run `use` with the gateway's side of the ledger, each call of which has `timeout_s`."""

    async def run() -> T:
        connection = redis.asyncio.Redis.from_url(url, decode_responses=True)
        try:
            return await use(AsyncLedger(connection, timeout_s=timeout_s))
        finally:
            await connection.aclose()

    return asyncio.run(run())


@pytest.fixture
def accept(empty_valkey: Server) -> Callable[..., Any]:
    """Accept entries as one submission and return the answer."""

    def accept(*entries: Entry, key: str | None = None, fingerprint: str = "") -> Any:
        submission = Submission(entries, idempotency_key=key, fingerprint=fingerprint)
        return with_async(empty_valkey.redis_url, lambda gateway: gateway.accept(submission))

    return accept


def claim(ledger: Ledger, job_id: str, *, owner: str = "w1", lease_s: float = 60, **more: Any) -> Claim | Refusal:
    return ledger.claim(job_id, owner=owner, worker=f"{owner}@host", lease_s=lease_s, message="{}", **more)


def claimed(ledger: Ledger, job_id: str, **more: Any) -> Claim:
    answer = claim(ledger, job_id, **more)
    assert isinstance(answer, Claim), answer
    return answer


def record(ledger: Ledger, job_id: str) -> Record:
    found = ledger.read(job_id)
    assert isinstance(found, Record), found
    return found


def ids_on(client: redis.Redis, name: str = LIST) -> list[str]:
    """Return the ids on a list, the one that is taken next first."""
    return [json.loads(message)["headers"]["id"] for message in reversed(client.lrange(name, 0, -1))]


def lapse(client: redis.Redis, job_id: str) -> None:
    """Let the claim of a job run out, as if its worker had been silent for the lease."""
    client.hset(key("job", job_id), "claim_until", "1")
    client.zadd(key("claims"), {job_id: 1})


def publish_long_ago(client: redis.Redis, job_id: str, name: str = LIST, *, at_ms: int = 1) -> None:
    """Let the message of a job have been put on its list at `at_ms`."""
    client.zadd(key("published", name), {job_id: at_ms})
    client.hset(key("job", job_id), "published_at", str(at_ms))


def tended(ledger: Ledger, **more: Any) -> list[tuple[str, str]]:
    acting = ledger.tend(owner="keeper", **more)
    return [(action.what, action.id) for action in acting.actions] if acting else []


def workflow(names: list[str], after: dict[str, list[str]]) -> Entry:
    """Return a job whose steps wait for the ones named in `after`."""
    job_id, ids = uuid7(), {name: uuid7() for name in names}
    steps = tuple(
        replace(
            entry(id=ids[name]),
            job_id=job_id,
            step=name,
            after=tuple(ids[before] for before in after.get(name, [])),
            before=tuple(ids[other] for other in names if name in after.get(other, [])),
            message=json.dumps({"headers": {"id": ids[name]}}) if not after.get(name) else None,
        )
        for name in names
    )
    return replace(entry(id=job_id), message=None, steps=steps)
