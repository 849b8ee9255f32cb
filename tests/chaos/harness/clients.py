"""The clients of the service: what they asked for, what they were promised, and every answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.harness.programs import Program
from tests.support.servers.cpu_waits import Stopwatch
from tests.support.servers.services import http_client

_REPEAT_AFTER_S = 0.3
_DONE = 202


@dataclass(frozen=True)
class Answer:
    """One answer: when it was asked for, how long it took, and what it was."""

    asked_at: float
    took_s: float
    own_s: float  # of that, without what client and gateway waited for a CPU
    status: int  # 0: none within the bound
    code: str
    request: str


@dataclass
class Clients:
    """Everything that asks one gateway. Safe in threads."""

    url: str
    gateway: Program
    give_up_at: float  # after this nothing is repeated, by the monotonic clock
    answers: list[Answer] = field(default_factory=list)
    accepted: dict[str, tuple[str, ...]] = field(default_factory=dict)  # job id: labels that it runs under
    denied: dict[str, str] = field(default_factory=dict)  # label: what the answer said, and that nothing was accepted
    unanswered: list[str] = field(default_factory=list)  # what no repetition got accepted

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """Ask once. Returns None where nobody listens, or what listened ended before it answered."""
        asked_at, watch = time.monotonic(), Stopwatch(self.gateway.pid)
        try:
            response = http_client.request(method, f"{self.url}{path}", **request)
        except httpx.TimeoutException:
            took_s = time.monotonic() - asked_at
            self.answers.append(Answer(asked_at, took_s, watch.own_s, 0, "no answer", f"{method} {path}"))
            return None
        except httpx.TransportError:
            return None
        took_s, own_s, code = time.monotonic() - asked_at, watch.own_s, ""
        if response.is_error and response.headers.get("content-type", "").startswith("application/problem+json"):
            code = response.json()["code"]
        self.answers.append(Answer(asked_at, took_s, own_s, response.status_code, code, f"{method} {path}"))
        return response

    def submit(self, job: dict[str, Any], *labels: str) -> str | None:
        """Submit a job with an Idempotency-Key, again and again until it is accepted. Returns its id."""
        while time.monotonic() < self.give_up_at:
            answer = self.ask("POST", "/jobs", json=job, headers={"Idempotency-Key": labels[0]})
            if answer is not None and answer.status_code == _DONE:
                job_id = str(answer.json()["id"])
                self.accepted[job_id] = labels
                return job_id
            time.sleep(_REPEAT_AFTER_S)
        self.unanswered.append(labels[0])
        return None

    def submit_all(self, jobs: Iterable[dict[str, Any]], *, batch: int = 100) -> None:
        """Submit traced jobs in batches, each again and again until it is accepted."""
        waiting = list(jobs)
        for at in range(0, len(waiting), batch):
            part = waiting[at : at + batch]
            labels = [job["params"]["label"] for job in part]
            while True:
                headers = {"Idempotency-Key": f"batch of {labels[0]}"}
                answer = self.ask("POST", "/jobs/batch", json={"jobs": part}, headers=headers)
                if answer is not None and answer.status_code == _DONE:
                    ids = [job["id"] for job in answer.json()["jobs"]]
                    self.accepted |= {job_id: (label,) for job_id, label in zip(ids, labels, strict=True)}
                    break
                if time.monotonic() >= self.give_up_at:
                    self.unanswered += labels
                    break
                time.sleep(_REPEAT_AFTER_S)

    def submit_once(self, *jobs: dict[str, Any]) -> None:
        """Submit a traced job, or a batch of them, without a key, and believe the answer."""
        labels = [job["params"]["label"] for job in jobs]
        one = len(jobs) == 1
        answer = self.ask("POST", "/jobs" if one else "/jobs/batch", json=jobs[0] if one else {"jobs": list(jobs)})
        if answer is None:
            return
        if answer.status_code == _DONE:
            ids = [job["id"] for job in ([answer.json()] if one else answer.json()["jobs"])]
            self.accepted |= {job_id: (label,) for job_id, label in zip(ids, labels, strict=True)}
        elif "nothing was accepted" in answer.json().get("detail", ""):
            self.denied |= dict.fromkeys(labels, answer.json()["code"])

    def states(self, *, only_some: bool = False, **wanted: Any) -> dict[str, str] | None:
        """Return the states of jobs by their ids, all or one page of them; None where they cannot be had."""
        found: dict[str, str] = {}
        query = {**wanted, "page_size": 200}
        while True:
            answer = self.ask("GET", "/jobs", params=query)
            if answer is None or answer.is_error:
                return None
            page = answer.json()
            found |= {job["id"]: job["state"] for job in page["jobs"]}
            if not page["next_page_token"] or (only_some and found):
                return found
            query["page_token"] = page["next_page_token"]


@contextmanager
def crowd(number: int, visit: Callable[[], object], *, rest_s: float) -> Iterator[None]:
    """Let this number of clients call `visit` again and again, resting for `rest_s` between, until the block ends."""
    over = threading.Event()

    def come() -> None:
        while not over.wait(rest_s):
            visit()

    with ThreadPoolExecutor(number) as pool:
        visitors = [pool.submit(come) for _ in range(number)]
        try:
            yield
        finally:
            over.set()
    for visitor in visitors:
        visitor.result()
