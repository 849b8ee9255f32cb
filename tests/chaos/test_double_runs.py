"""A worker that cannot renew its claims: its bodies stand still before another worker starts their jobs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness.facts import Facts
from tests.chaos.harness.proxy import Proxy, proxy_to
from tests.chaos.harness.stage import NEW
from tests.support.servers.services import Server, gateway_server, wait_for
from tests.support.servers.workers import Jobs, Worker, crew

pytestmark = pytest.mark.chaos

LEASE_S = 2
LASTS_S = 6.0  # of a body: three leases


@dataclass
class Reached:
    """A worker, and the proxy through which alone it reaches broker and ledger."""

    worker: Worker
    proxy: Proxy

    def says(self, words: str) -> bool:
        return words in self.worker.log.read_text()


@dataclass
class House:
    """A gateway, two workers, and a journal of what ran when."""

    valkey: Server
    jobs: Jobs
    workers: dict[str, Reached]
    journal: Path

    def submit(self, **params: Any) -> str:
        job = {"journal": str(self.journal), "label": "one", "lasts_s": LASTS_S, "is_quiet": True, **params}
        return self.jobs.submit("chaos.leave_trace", job)

    def worker_of(self, job_id: str) -> Reached:
        """Return the worker that runs a job, once its body has begun."""
        wait_for(lambda: self.runs(1), "the first run")
        return self.workers[self.jobs.get(job_id)["worker"]]

    def runs(self, number: int) -> bool:
        """Return whether this number of bodies has begun."""
        return len(Facts.read(self.journal).all_runs()) >= number

    def outcomes(self, job_id: str) -> list[str]:
        return [attempt["outcome"] for attempt in self.jobs.ended(job_id)["attempts"]]


@pytest.fixture(scope="module")
def service(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("double-runs")
    env = {
        **NEW,
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_LEASE_S": str(LEASE_S),
        "CELERIAC_LOST_MESSAGE_GRACE_S": "2",
    }
    with (
        gateway_server(folder / "gateway", **env) as gateway,
        crew(folder / "workers", **env) as workers,
        proxy_to(own_valkey.port) as one,
        proxy_to(own_valkey.port) as other,
    ):
        workers.start(queues="report")  # is the keeper, and runs none of these jobs
        reached = {
            f"w{n}@test": Reached(workers.start(CELERY_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0"), proxy)
            for n, proxy in enumerate((one, other), start=1)
        }
        yield House(own_valkey, Jobs(gateway), reached, folder)


@pytest.fixture
def house(service: House, tmp_path: Path) -> House:
    """Return the service with a journal of the test's own."""
    return replace(service, journal=tmp_path / "journal.txt")


def test_a_body_under_a_frozen_main_process_does_not_run_beside_the_second_attempt(house: House) -> None:
    """It is suspended before that begins, and killed when the main process is back; nobody is blamed for a crash."""
    job_id = house.submit()
    frozen = house.worker_of(job_id)
    os.kill(frozen.worker.process.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: house.runs(2), "the second run")
        assert frozen.says(f"{job_id}: its claim was not renewed in time: it is suspended")
    finally:
        os.kill(frozen.worker.process.pid, signal.SIGCONT)
    assert house.outcomes(job_id) == ["lost", "succeeded"]
    facts = Facts.read(house.journal)
    assert (facts.side_by_side(), facts.run_after_success()) == ([], [])
    wait_for(lambda: frozen.says(f"{job_id}: lost, killing child"), "the end of the suspended child")
    after = [house.submit(lasts_s=0.5) for _ in house.workers]
    assert {house.jobs.ended(job)["state"] for job in after} == {"succeeded"}


def test_a_body_of_a_worker_that_is_cut_off_does_not_run_beside_the_second_attempt(house: House) -> None:
    """The ledger answers everybody else: the body is suspended in time, and killed when the network is back."""
    job_id = house.submit()
    cut_off = house.worker_of(job_id)
    cut_off.proxy.hold()
    try:
        wait_for(lambda: house.runs(2), "the second run")
        assert cut_off.says(f"{job_id}: its claim was not renewed in time: it is suspended")
    finally:
        cut_off.proxy.release()
    wait_for(lambda: cut_off.says(f"{job_id}: lost, killing child"), "the end of the suspended child")
    assert house.outcomes(job_id) == ["lost", "succeeded"]
    facts = Facts.read(house.journal)
    assert (facts.side_by_side(), facts.run_after_success()) == ([], [])
    assert cut_off.worker.process.poll() is None


def test_an_outage_of_the_ledger_for_all_costs_a_pause_and_no_run(house: House) -> None:
    """It is silent for longer than a lease: the body stands still, and goes on where it stood."""
    job_id = house.submit()
    runs_it = house.worker_of(job_id)
    os.kill(house.valkey.process.pid, signal.SIGSTOP)
    silent_until = time.monotonic() + LEASE_S + 0.5  # the body stands before the lease is over
    try:
        wait_for(
            lambda: runs_it.says(f"{job_id}: its claim was not renewed in time: it is suspended"), "a suspended body"
        )
        wait_for(lambda: time.monotonic() > silent_until, "the end of the lease")
    finally:
        os.kill(house.valkey.process.pid, signal.SIGCONT)
    assert house.outcomes(job_id) == ["succeeded"]
    assert runs_it.says(f"{job_id}: its claim is renewed: it continues")


def test_a_warden_that_ends_is_replaced(house: House) -> None:
    """The next one does the same."""
    worker = next(iter(house.workers.values())).worker

    def warden() -> int | None:
        lists = Path(f"/proc/{worker.process.pid}/task").glob("*/children")  # a thread starts the second one
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for one in lists for pid in one.read_text().split()}
        return next((int(pid) for pid, command in commands.items() if "worker.upkeep.warden" in command), None)

    first = wait_for(warden, "a warden")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: (second := warden()) is not None and second != first, "another warden")
