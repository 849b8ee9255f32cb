"""Real beat processes: schedules that change under them, slots they missed, two of them at once, a ledger that goes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.ledger.keys import key
from shared.schedules.terms import Schedule
from tests.support.servers.outages import RestartableValkey, restartable_valkey
from tests.support.servers.services import BOUND_S, Server, gateway_server, http_client, running, wait_for
from tests.support.servers.workers import ACME

pytestmark = pytest.mark.integration

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Service:
    """A gateway and its ledger, and what it takes to start a beat beside them."""

    gateway: Server
    valkey: RestartableValkey
    folder: Path
    env: dict[str, str]

    def beat(self, app: str = "worker.app") -> AbstractContextManager[Server]:
        """Run a beat until the block ends; it has said that it starts."""
        command = [sys.executable, "-m", "celery", "-A", app, "beat", "--loglevel", "INFO", "--pidfile="]
        folder = self.folder / f"beat-{time.monotonic_ns()}"
        started = lambda: any("Starting" in log.read_text() for log in folder.glob("*.log"))  # noqa: E731 - one use
        return running(command, folder, port=0, ready=started, env=self.env)

    def make(self, notebook: str, **terms: Any) -> str:
        """Make a schedule of a note, every second unless told otherwise; return its id."""
        body = {"name": notebook, "kind": "acme.take_note", "params": {"notebook": notebook}, "overlap": "allow"}
        rhythm = {} if "crontab" in terms else {"interval_s": 1}
        answer = http_client.post(f"{self.gateway.url}/schedules", json=body | rhythm | terms)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def call(self, method: str, path: str, **more: Any) -> Any:
        """Speak to the gateway; return what it answers."""
        answer = http_client.request(method, f"{self.gateway.url}{path}", **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def jobs(self, schedule: str) -> list[dict[str, Any]]:
        """Return the jobs of a schedule, newest first."""
        return list(self.call("GET", f"/jobs?schedule={schedule}&page_size=200")["jobs"])

    def fires(self, schedule: str, notebook: str | None = None, *, times: int = 1) -> None:
        """Wait until the schedule makes this number of further jobs; `notebook`: of the last one."""
        seen = {job["id"] for job in self.jobs(schedule)}

        def again() -> bool:
            new = [job for job in self.jobs(schedule) if job["id"] not in seen]
            if len(new) < times:
                return False
            return notebook is None or self.call("GET", f"/jobs/{new[0]['id']}")["params"]["notebook"] == notebook

        wait_for(again, f"{times} more jobs of {schedule}")

    def redis(self) -> redis.Redis:
        """Return a client of the ledger's Redis."""
        return redis.Redis(port=self.valkey.port, decode_responses=True)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("beat")
    with restartable_valkey(folder / "valkey") as valkey:
        env = {**ACME, "CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
        with gateway_server(folder, **env) as gateway:
            yield Service(gateway, valkey, folder, {**env, "WORKER_FAMILIES": "", "CELERIAC_TASKS": ""})


def missed_ten_minutes_ago(service: Service, schedule: str) -> str:
    """Let the schedule be three hours old and its last slot ten minutes past; return the id of that slot's job."""
    entry = key("redbeat", schedule)
    with service.redis() as client:
        document = Schedule.model_validate_json(str(client.hget(entry, "document")))
        start_ms = time.time_ns() // 1_000_000 - 3 * HOUR_MS - 600_000
        moved = document.model_copy(update={"starts_at_ms": start_ms})
        client.hset(entry, mapping={"document": moved.document(), "cursor": start_ms})
        client.zadd(key("redbeat_schedule"), {entry: start_ms / 1000})
    return moved.job_id(start_ms + 3 * HOUR_MS)


def test_beat_catches_up_and_follows_every_change(service: Service) -> None:
    """Missed slots go by policy; then one schedule fires, is paused, resumed, edited and deleted, with no restart.

    At the end the ledger goes away and comes back, and SIGTERM ends beat at once.
    """
    skips = service.make("skips", interval_s=3_600, missed="skip")
    runs_once = service.make("runs once", interval_s=3_600, missed="run_once")
    expected = [missed_ten_minutes_ago(service, runs_once)]
    missed_ten_minutes_ago(service, skips)
    with service.beat() as beat:
        wait_for(lambda: service.jobs(runs_once), "the missed slot")
        wait_for(lambda: service.call("GET", f"/schedules/{skips}")["skipped_count"] == 1, "the skipped slots")
        assert ([job["id"] for job in service.jobs(runs_once)], service.jobs(skips)) == (expected, [])

        notes = service.make("first")
        url = f"/schedules/{notes}"
        service.fires(notes, "first")
        assert service.call("POST", f"{url}/pause")["paused"]
        while_paused = len(service.jobs(notes))
        other = service.make("other")
        service.fires(other)  # beat ticks on, past slots of the paused one
        assert len(service.jobs(notes)) == while_paused
        service.call("POST", f"{url}/resume")
        service.fires(notes, "first")
        body = {"name": "x", "kind": "acme.take_note", "params": {"notebook": "second"}, "interval_s": 1.5}
        service.call("PUT", url, json=body | {"overlap": "allow"})
        service.fires(notes, "second")
        service.call("DELETE", url)
        when_deleted = len(service.jobs(notes))
        service.fires(other, times=2)
        assert len(service.jobs(notes)) == when_deleted

        service.valkey.stop()
        wait_for(lambda: '"level": "warning"' in beat.log.read_text(), "beat's word on the outage")
        service.valkey.start()
        wait_for(lambda: http_client.get(f"{service.gateway.url}/readyz").is_success, "return of the ledger")
        service.fires(other)
        service.call("DELETE", f"/schedules/{other}")
        beat.process.terminate()
        assert beat.process.wait(BOUND_S) == 0
    with service.redis() as client:
        assert client.exists(key("redbeat_lock")) == 0


def test_two_beats_at_once_make_one_job_of_a_tick(service: Service) -> None:
    """Neither takes the lock, both tick every second: every slot has one job, published once."""
    notes = service.make("both")
    with ExitStack() as stack:
        beats = [stack.enter_context(service.beat("tests.acme.lockless_beat")) for _ in range(2)]

        def both_decided() -> bool:
            decided = [beat.log.read_text().count(notes) for beat in beats]
            return min(decided) >= 1 and len(service.jobs(notes)) >= 5

        wait_for(both_decided, "work of both beats", bound_s=90)
        shown = service.call("POST", f"/schedules/{notes}/pause")
    with service.redis() as client:
        schedule = Schedule.model_validate_json(str(client.hget(key("redbeat", notes), "document")))
        ids = [str(job_id) for job_id in client.zrange(key("schedule", notes), 0, -1)]
        publishes = {client.hget(key("job", job_id), "publishes") for job_id in ids}
    first, last = (int(job_id.replace("-", "")[:12], 16) for job_id in (ids[0], ids[-1]))
    slots = range(first, last + 1, 1_000)
    assert set(ids) <= {schedule.job_id(slot) for slot in slots}
    assert (len(ids), publishes) == (len(set(ids)), {"1"})
    assert shown["last_job"]["id"] == ids[-1]


def test_the_second_beat_takes_over_from_one_that_is_killed_or_frozen(service: Service) -> None:
    """Within 10 s, whether the holder of the lock is gone or only stands; what thaws makes no second job of a slot."""
    notes = service.make("watched")

    def fires_again() -> None:
        seen = {job["id"] for job in service.jobs(notes)}
        wait_for(lambda: {job["id"] for job in service.jobs(notes)} - seen, "the next slot", bound_s=10)

    def has_lock(beat: Server) -> bool:
        return "took the lock" in beat.log.read_text()

    with service.beat() as killed:
        wait_for(lambda: has_lock(killed), "the lock of the first beat")
        service.fires(notes)
        with service.beat() as frozen, service.beat() as last:
            killed.process.kill()
            fires_again()
            holder = wait_for(lambda: next((one for one in (frozen, last) if has_lock(one)), None), "the next holder")
            holder.process.send_signal(signal.SIGSTOP)
            try:
                fires_again()
            finally:
                holder.process.send_signal(signal.SIGCONT)
            assert has_lock(frozen)
            assert has_lock(last)
            service.fires(notes, times=2)
            service.call("DELETE", f"/schedules/{notes}")
    made = [job["id"] for job in service.jobs(notes)]
    assert len(made) == len(set(made))
