"""A worker that cannot renew its claims: its bodies stand still before another worker starts their jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness.facts import Facts
from tests.chaos.harness.proxy import Proxy, proxy_to
from tests.chaos.harness.stage import NEW
from tests.support.servers.services import Server, gateway_server, wait_for
from tests.support.servers.workers import Crew, Jobs, Worker, crew

pytestmark = pytest.mark.chaos

LEASE_S = 2
LASTS_S = 8.0  # of a body: four leases


@dataclass
class House:
    """A gateway, workers of which some are behind a proxy, and a journal of what ran when."""

    valkey: Server
    jobs: Jobs
    workers: Crew
    proxy: Proxy
    journal: Path

    def start(self, *, behind_proxy: bool = False) -> Worker:
        port = self.proxy.port if behind_proxy else self.valkey.port
        return self.workers.start(CELERY_BROKER_URL=f"redis://127.0.0.1:{port}/0")

    def submit(self, **params: Any) -> str:
        job = {"journal": str(self.journal), "label": "one", "lasts_s": LASTS_S, "is_quiet": True, **params}
        return self.jobs.submit("chaos.leave_trace", job)

    def runs(self, number: int) -> bool:
        """Return whether this number of bodies has begun."""
        return len(Facts.read(self.journal).all_runs()) >= number

    def outcomes(self, job_id: str) -> list[str]:
        return [attempt["outcome"] for attempt in self.jobs.ended(job_id)["attempts"]]


@pytest.fixture
def house(empty_valkey: Server, tmp_path: Path) -> Iterator[House]:
    env = {
        **NEW,
        "CELERY_BROKER_URL": empty_valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path / "store"),
        "CELERIAC_LEASE_S": str(LEASE_S),
        "CELERIAC_LOST_MESSAGE_GRACE_S": "2",
    }
    with (
        gateway_server(tmp_path / "gateway", **env) as gateway,
        crew(tmp_path / "workers", **env) as workers,
        proxy_to(empty_valkey.port) as proxy,
    ):
        workers.start(queues="report")  # is the keeper, and runs none of these jobs
        yield House(empty_valkey, Jobs(gateway), workers, proxy, tmp_path / "journal.txt")


def _says(worker: Worker, *words: str) -> bool:
    return all(word in worker.log.read_text() for word in words)


def test_a_body_under_a_frozen_main_process_does_not_run_beside_the_second_attempt(house: House) -> None:
    """It is suspended before that begins, and killed when the main process is back; nobody is blamed for a crash."""
    frozen = house.start()
    job_id = house.submit()
    wait_for(lambda: house.runs(1), "the first run")
    os.kill(frozen.process.pid, signal.SIGSTOP)
    house.start()
    wait_for(lambda: house.runs(2), "the second run")
    assert _says(frozen, "it is suspended", job_id)
    os.kill(frozen.process.pid, signal.SIGCONT)
    assert house.outcomes(job_id) == ["lost", "succeeded"]
    facts = Facts.read(house.journal)
    assert (facts.side_by_side(), facts.run_after_success()) == ([], [])
    wait_for(partial(_says, frozen, "lost, killing child"), "the end of the suspended child")
    after = house.submit(lasts_s=0)
    assert house.jobs.ended(after)["state"] == "succeeded"


def test_a_body_of_a_worker_that_is_cut_off_does_not_run_beside_the_second_attempt(house: House) -> None:
    """The ledger answers everybody else: the body is suspended in time, and killed when the network is back."""
    cut_off = house.start(behind_proxy=True)
    job_id = house.submit()
    wait_for(lambda: house.runs(1), "the first run")
    house.start()
    house.proxy.hold()
    wait_for(lambda: house.runs(2), "the second run")
    assert _says(cut_off, "it is suspended", job_id)
    house.proxy.release()
    wait_for(partial(_says, cut_off, "lost, killing child"), "the end of the suspended child")
    assert house.outcomes(job_id) == ["lost", "succeeded"]
    facts = Facts.read(house.journal)
    assert (facts.side_by_side(), facts.run_after_success()) == ([], [])
    assert cut_off.process.poll() is None


def test_an_outage_of_the_ledger_for_all_costs_a_pause_and_no_run(house: House) -> None:
    """It is silent for longer than a lease: the body stands still, and goes on where it stood."""
    workers = [house.start(), house.start()]
    job_id = house.submit()
    wait_for(lambda: house.runs(1), "the first run")
    os.kill(house.valkey.process.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: any(_says(worker, "it is suspended") for worker in workers), "a suspended body")
    finally:
        os.kill(house.valkey.process.pid, signal.SIGCONT)
    assert house.outcomes(job_id) == ["succeeded"]
    assert any(_says(worker, "it continues") for worker in workers)


def test_a_warden_that_ends_is_replaced(house: House) -> None:
    """The next one does the same."""
    worker = house.start()

    def warden() -> int | None:
        lists = Path(f"/proc/{worker.process.pid}/task").glob("*/children")  # a thread starts the second one
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for one in lists for pid in one.read_text().split()}
        return next((int(pid) for pid, command in commands.items() if "worker.upkeep.warden" in command), None)

    first = wait_for(warden, "a warden")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: (second := warden()) is not None and second != first, "another warden")
