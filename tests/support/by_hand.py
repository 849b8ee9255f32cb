"""A job submitted over HTTP and run by hand: the test is the worker, and says when what happens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import redis

from shared.ledger.client import Ledger
from shared.ledger.records import Claim, Record
from tests.support.servers.services import http_client

_SOURCE = {"kind": "http", "url": "https://example.org/sales.csv"}
EXTRACT = {"kind": "etl.extract_data", "params": {"source": _SOURCE}}
PARTITIONED = {"kind": "etl.run_partitioned", "params": {"sources": [_SOURCE, _SOURCE]}}


@dataclass
class HandRun:
    """The worker's side of one job (or of one of its steps)."""

    ledger: Ledger
    id: str
    token: str = ""

    def claim(self) -> None:
        """Take the job."""
        claim = self.ledger.claim(self.id, owner="hand", worker="hand@test", lease_s=60, message="{}")
        assert isinstance(claim, Claim), claim
        self.token = claim.token

    def log(self, *messages: str) -> None:
        """Write lines into the job's log, in one call."""
        lines = [{"at": "2026-01-31T12:00:00+00:00", "level": "info", "message": m, "fields": {}} for m in messages]
        self.ledger.progress(self.id, token=self.token, progress=None, logs=[json.dumps(line) for line in lines])

    def progress(self, current: int, total: int) -> None:
        """Say how far the job is."""
        figures = {"current": current, "total": total, "unit": "rows", "message": ""}
        self.ledger.progress(self.id, token=self.token, progress=json.dumps(figures))

    def succeed(self, *artifacts: dict[str, Any], result: str = "{}") -> None:
        """End the job."""
        self.ledger.succeed(self.id, token=self.token, result=result, artifacts=json.dumps(artifacts))

    def steps(self) -> list[HandRun]:
        """Return the steps of the job."""
        record = self.ledger.read(self.id)
        assert isinstance(record, Record)
        return [HandRun(self.ledger, step.id) for step in record.steps]


@contextmanager
def hand(port: int) -> Iterator[Ledger]:
    """Yield the worker's side of the ledger on `port`."""
    with redis.Redis(port=port, decode_responses=True) as client:
        yield Ledger(client)


def submitted(url: str, ledger: Ledger, submission: dict[str, Any] = EXTRACT) -> HandRun:
    """Submit a job and return the worker's side of it."""
    answer = http_client.post(f"{url}/jobs", json=submission)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return HandRun(ledger, answer.json()["id"])


def waiting_requests(url: str) -> int:
    """Return how many requests wait for a change of a job, by the gateway's own count."""
    metrics = http_client.get(f"{url}/metrics").text
    return int(float(re.findall(r"^celeriac_waiting_requests (\S+)$", metrics, re.MULTILINE)[0]))


def stream(url: str, job: str, **options: Any) -> Iterator[dict[str, Any]]:
    """Yield a job's server-sent events as ``{event, id, data}``; comments as ``{comment}``."""
    with http_client.stream("GET", f"{url}/jobs/{job}/events", **options) as answer:
        assert answer.status_code == httpx.codes.OK, answer.read()
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if not line and event:
                yield event
                event = {}
            elif line:
                event[name or "comment"] = json.loads(value) if name == "data" else value
