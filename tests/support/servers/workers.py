"""Real worker processes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from shared.ledger.states import FINAL_STATES
from tests.support.servers import nursery
from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, wait_for

ACME = {"CELERIAC_CONTRACTS": "shared.jobs,tests.acme.contracts", "CELERIAC_TASKS": "tests.acme.tasks"}
ACME_ALONE = {**ACME, "CELERIAC_CONTRACTS": "tests.acme.contracts"}  # starts in half the time
AUTHORS = {
    "CELERIAC_CONTRACTS": "tests.acme.authors_contracts",
    "CELERIAC_TASKS": "tests.acme.hostile,tests.acme.authors",
}
MAIN_THREADS = 4  # of a worker's main process: its own, and those of the custodian, the keeper and the keeper's turns
END_BOUND_S = 90.0


@dataclass
class Worker:
    """A worker: its main process and where its log goes."""

    process: nursery.Process
    log: Path

    @property
    def children(self) -> list[int]:
        """Process ids of its pool, of its warden and of its writer of rows."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    @property
    def pool(self) -> list[int]:
        """Process ids of its pool, whose processes run jobs."""
        others = (b"worker.upkeep.warden", b"worker.upkeep.rows")
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.children}
        return [pid for pid, command in commands.items() if not any(other in command for other in others)]

    def kill(self) -> None:
        """End it as the kernel would: no handler runs."""
        self.process.kill()
        self.process.wait()

    def stop(self, bound_s: float = BOUND_S) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(bound_s)


@dataclass
class Crew:
    """Starts workers with one configuration and ends those that are left."""

    folder: Path
    env: dict[str, str]
    workers: list[Worker] = field(default_factory=list)

    def start(self, *arguments: str, queues: str = "", concurrency: int = 1, talks: bool = False, **env: str) -> Worker:
        """Start a worker process of its own and wait until it consumes; `queues` narrows which.

        `arguments` go to `celery worker`. It `talks` to other workers (Celery's mingle and gossip) only if asked to:
        that makes its start slower.
        """
        name = f"w{len(self.workers)}"
        log = self.folder / f"{name}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "INFO"]
        command += ["-n", f"{name}@test", "-c", str(concurrency)]
        command += [] if talks else ["--without-mingle", "--without-gossip"]
        command += ["-Q", queues] if queues else []
        command += arguments
        with log.open("wb") as output:
            process = nursery.start(command, output, {**self.env, **env})
        worker = Worker(process, log)
        self.workers.append(worker)
        wait_for(lambda: " ready." in log.read_text() or process.poll() is not None, f"start of {name}")
        assert process.poll() is None, log.read_text()
        return worker

    def end(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()


@contextmanager
def crew(folder: Path, **env: str) -> Iterator[Crew]:
    """Yield a crew on an empty broker and ledger, whose workers are gone afterwards.

    Another module's jobs may still lie there, and these workers would run them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for variable in env.keys() & {"CELERY_BROKER_URL", "CELERIAC_LEDGER_URL"}:
        with redis.Redis.from_url(env[variable]) as client:
            client.flushall()
    made = Crew(folder, env)
    try:
        yield made
    finally:
        made.end()


@dataclass(frozen=True)
class Jobs:
    """Jobs over HTTP."""

    gateway: Server

    def submit(self, kind: str, params: dict[str, Any], **options: Any) -> str:
        """Submit a job and return its id."""
        body = {"kind": kind, "params": params, "options": options}
        answer = http_client.post(f"{self.gateway.url}/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, job_id: str, **query: Any) -> dict[str, Any]:
        """Return the job."""
        answer = http_client.get(f"{self.gateway.url}/jobs/{job_id}", params=query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def has_room(self) -> bool:
        """Return whether the gateway is ready: it looks at the ledger's memory once in a while."""
        return http_client.get(f"{self.gateway.url}/readyz").status_code == httpx.codes.OK

    def cancel(self, job_id: str) -> int:
        """Cancel the job; return the status code."""
        return http_client.post(f"{self.gateway.url}/jobs/{job_id}/cancel").status_code

    def in_state(self, job_id: str, *states: str, bound_s: float = END_BOUND_S) -> dict[str, Any]:
        """Wait until the job is in one of `states` and return it."""

        def there() -> dict[str, Any] | None:
            job = self.get(job_id)
            return job if job["state"] in states else None

        return wait_for(there, f"{job_id} in {states}, now {self.get(job_id)['state']}", bound_s=bound_s)

    def ended(self, job_id: str, *, bound_s: float = END_BOUND_S) -> dict[str, Any]:
        """Wait until the job has ended and return it."""

        def there() -> dict[str, Any] | None:
            job = self.get(job_id, wait_s=min(5, bound_s))
            return job if job["state"] in FINAL_STATES else None

        return wait_for(there, f"end of {job_id}, now {self.get(job_id)['state']}", bound_s=bound_s)


@contextmanager
def serving(folder: Path, redis_url: str, kinds: Mapping[str, str], *, concurrency: int = 1) -> Iterator[Jobs]:
    """Run a gateway and a worker that have these kinds, such as `AUTHORS`, and yield the jobs of the gateway."""
    env = {**kinds, "CELERY_BROKER_URL": redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with gateway_server(folder, **env) as gateway, crew(folder, **env) as workers:
        workers.start(concurrency=concurrency)
        yield Jobs(gateway)
