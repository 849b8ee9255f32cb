"""`celeriac doctor` on set-ups that are right and on set-ups that are wrong, made of real parts."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from cli.app import app
from cli.doctor import servers
from cli.local.folder import claimed_folder
from shared.ledger.client import Ledger
from shared.ledger.operations import workers_of
from tests.support.servers.disks import small_disk
from tests.support.servers.services import Server, free_port, gateway_server, valkey_server, wait_for
from tests.support.servers.workers import ACME_ALONE, Crew, Jobs, crew

PASSWORD = "hunter2@&"  # noqa: S105 - of nothing
IN_URL = "hunter2%40%26"
Doctor = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def env(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a service."""
    store = tmp_path_factory.mktemp("store")
    return {
        **ACME_ALONE,
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(store),
        "CELERIAC_LEASE_S": "2",
    }


@pytest.fixture(scope="module")
def workers(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Yield workers, of which one runs."""
    with crew(tmp_path_factory.mktemp("workers"), **env) as made:
        made.start(queues="etl,report")
        yield made


@pytest.fixture(scope="module")
def gateway(env: dict[str, str], workers: Crew, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield the gateway of these workers."""
    assert workers.workers
    with gateway_server(tmp_path_factory.mktemp("gateway"), **env) as server:
        yield server


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a Valkey that nobody else uses."""
    with valkey_server(tmp_path_factory.mktemp("lonely")) as server:
        yield server


@pytest.fixture
def doctor(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Return a function that runs the command in this environment with changes, and returns its JSON.

    Whatever it says, it has no secret in it, and it ends as it says.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("CELER", "WORKER_"))]:
        monkeypatch.delenv(name)

    def run(*words: str, **changes: str | None) -> dict[str, Any]:
        inherited: dict[str, str | None] = {**env, "CELERIAC_CONTRACTS": None, "CELERIAC_TASKS": None}
        whole = {"CELERIAC_URL": f"http://127.0.0.1:{free_port()}", **inherited, **changes}
        done = CliRunner(env=whole).invoke(app, ["doctor", *words, "--json"])
        assert PASSWORD not in done.output
        assert "hunter2" not in done.output
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == (found["outcome"] == "fail"), done.output
        assert all(check["remedy"] or check["outcome"] == "ok" for check in found["checks"])
        return found

    return run


def of(found: dict[str, Any], check: str) -> list[tuple[str, str]]:
    """Return outcome and words of each line of a check."""
    return [(one["outcome"], f"{one['message']} {one['remedy']}") for one in found["checks"] if one["check"] == check]


def test_a_set_up_that_is_right(doctor: Doctor, gateway: Server, env: dict[str, str]) -> None:
    """Every part is named, and none is wrong; queues for which nobody started a worker are a warning."""
    found = doctor(CELERIAC_URL=gateway.url)
    assert found["outcome"] == "warn"
    assert {one["check"] for one in found["checks"] if one["outcome"] == "warn"} == {
        "queue callbacks",
        "queue maintenance",
        "queue ml",
    }
    checks = {one["check"] for one in found["checks"] if one["outcome"] == "ok"}
    parts = {"settings", "ledger", "persistence", "eviction", "memory", "clock", "broker", "store", "connections"}
    assert {*parts, "gateway", "versions", "worker w0@test", "queue etl", "queue report", "kinds"} == checks
    assert [len(of(found, check)) for check in ("clock", "ledger")] == [2, 1]
    assert not list(Path(env["CELERIAC_STORE_URL"]).iterdir())


def test_for_people_it_is_a_line_for_each(gateway: Server, env: dict[str, str], tmp_path: Path) -> None:
    """With what to do at its end."""
    runner = CliRunner(env={**env, "CELERIAC_URL": gateway.url, "CELERIAC_STORE_URL": str(tmp_path / "store")})
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert all(line.split()[0] in {"ok", "warn"} for line in lines)
    assert any(line.startswith("ok    ledger                Valkey ") for line in lines)
    assert any("No worker takes its jobs; none waits. Start one, with " in line for line in lines)


def test_nothing_runs(doctor: Doctor) -> None:
    """It says so of each part, with what to do; what needs no server is looked at."""
    away = f"redis://:{IN_URL}@127.0.0.1:{free_port()}/0"
    found = doctor(CELERY_BROKER_URL=away)
    assert {one["check"] for one in found["checks"] if one["outcome"] == "fail"} == {
        "ledger",
        "broker",
        "gateway",
        "workers",
    }
    ((_, said),) = of(found, "ledger")
    assert "Nothing that speaks Redis answers at redis://127.0.0.1" in said
    assert "fix CELERY_BROKER_URL" in said
    assert of(found, "store")[0][0] == "ok"


def test_without_settings_it_looks_for_a_running_up(
    doctor: Doctor, gateway: Server, own_valkey: Server, tmp_path: Path
) -> None:
    """Its folder's lock says where broker and gateway are; without it, what is missing is said."""
    unset = {"CELERY_BROKER_URL": None, "CELERIAC_STORE_URL": None, "CELERIAC_URL": None}
    folder = tmp_path / "data"
    with claimed_folder(folder, gateway.port, broker_url=own_valkey.redis_url):
        found = doctor("--data", str(folder), **unset)
    assert of(found, "settings") == [("ok", f"those of `celeriac up` in {folder} are valid ")]
    assert of(found, "gateway") == [("ok", f"{gateway.url} accepts jobs ")]
    assert of(found, "connection warehouse")[0][0] == "ok"
    assert of(found, "connection lake")[0][0] == "ok"
    assert "not there yet" in of(found, "store")[0][1]
    alone = doctor("--data", str(folder), **{**unset, "CELERIAC_URL": f"http://127.0.0.1:{free_port()}"})
    assert "CELERY_BROKER_URL is not set, and no `celeriac up` runs here" in of(alone, "settings")[0][1]


@pytest.mark.parametrize("user", ["", "someone"])
def test_a_wrong_password(doctor: Doctor, lonely: Server, user: str) -> None:
    """Or none where one is asked for."""
    with redis.Redis(port=lonely.port) as client:
        client.config_set("requirepass", "another")
        try:
            for url in (f"redis://{user}:{IN_URL}@127.0.0.1:{lonely.port}/0", lonely.redis_url):
                found = doctor(CELERY_BROKER_URL=url)
                ((outcome, said),) = of(found, "ledger")
                assert (outcome, "does not accept the user or the password" in said) == ("fail", True), said
        finally:
            client.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("setting", "value", "check", "said"),
    [
        ("maxmemory-policy", "allkeys-lru", "eviction", "CONFIG SET maxmemory-policy noeviction"),
        ("appendonly", "no", "persistence", "CONFIG SET appendonly yes"),
        ("maxmemory", "1mb", "memory", "Raise maxmemory"),
        ("replicaof", "127.0.0.1 1", "ledger", "It is a replica, which takes no writes."),
    ],
)
def test_a_ledger_that_would_lose_jobs(  # noqa: PLR0917 - the case
    doctor: Doctor, lonely: Server, setting: str, value: str, check: str, said: str
) -> None:
    """Or take none: each is a failure with the command to run."""
    with redis.Redis(port=lonely.port) as client:
        if setting == "replicaof":
            client.replicaof(*value.split())
        else:
            before = client.config_get(setting)[setting]
            client.config_set(setting, value)
        try:
            found = doctor(CELERY_BROKER_URL=lonely.redis_url)
            volatile = doctor(CELERY_BROKER_URL=lonely.redis_url, CELERIAC_ALLOW_VOLATILE_BROKER="true")
        finally:
            if setting == "replicaof":
                client.replicaof("NO", "ONE")
            else:
                client.config_set(setting, before)
    assert any(outcome == "fail" and said in words for outcome, words in of(found, check)), found
    assert of(volatile, "persistence")[0][0] == ("warn" if setting == "appendonly" else "ok")


def test_a_store_that_cannot_be_written(doctor: Doctor, tmp_path: Path) -> None:
    """A read-only file system, a full one, a file in place of the folder, and a driver that is not there."""
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        (disk / "taken").write_bytes(b"x" * 60 * 1024)
        full = of(doctor(CELERIAC_STORE_URL=str(disk)), "store")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        read_only = of(doctor(CELERIAC_STORE_URL=str(disk)), "store")
    assert (read_only[0][0], "Read-only file system" in read_only[0][1]) == ("fail", True), read_only
    assert "MiB are free on its disk" in full[-1][1]
    (tmp_path / "file").write_text("x")
    for url in (str(tmp_path / "file" / "store"), "unknown://bucket/x"):
        assert of(doctor(CELERIAC_STORE_URL=url), "store")[0][0] == "fail", url
    assert (
        "for each program below the folder in which it is started" in of(doctor(CELERIAC_STORE_URL="x"), "store")[1][1]
    )


def test_settings_that_are_wrong(doctor: Doctor) -> None:
    """One that no program would start with, a misspelt one, and those that contradict each other."""
    invalid = doctor(CELERIAC_LEASE_S="long", CELERIAC_THREADS="0")
    assert [outcome for outcome, _ in of(invalid, "settings")] == ["fail"]
    assert "CELERIAC_LEASE_S='long'" in of(invalid, "settings")[0][1]
    assert "CELERIAC_THREADS='0'" in of(doctor(CELERIAC_THREADS="0"), "settings")[0][1]
    assert "is not a name" in of(doctor(CELERIAC_HOST_NAMES="https://jobs.example.com"), "settings")[0][1]
    for changes, said in [
        ({"CELERIAC_STORE_ULR": "/x"}, "Did you mean CELERIAC_STORE_URL?"),
        ({"CELERIAC_QUORUM_QUEUES": "true"}, "the broker is not RabbitMQ"),
        ({"CELERIAC_VISIBILITY_TIMEOUT_S": "1"}, "delivers the messages of running jobs again"),
        ({"CELERIAC_RETENTION_S": "60"}, "is shorter than CELERIAC_IDEMPOTENCY_S"),
        (
            {"CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0", "CELERIAC_LEDGER_URL": "redis://127.0.0.1:2/0"},
            "two Redis",
        ),
    ]:
        warned = of(doctor(**changes), "settings")
        assert [outcome for outcome, _ in warned] == ["warn"], warned
        assert said in warned[0][1]


def test_connections_that_do_not_lead_anywhere(doctor: Doctor, gateway: Server, tmp_path: Path) -> None:
    """Each is looked at as far as this is possible without logging in; a password is in no line."""
    closed = free_port()
    (tmp_path / "there").mkdir()
    file = tmp_path / "connections.toml"
    file.write_text(f"""
warehouse = {{kind = "postgresql", url_env = "WAREHOUSE_URL"}}
elsewhere = {{kind = "postgresql", url_env = "ELSEWHERE_URL"}}
plain = {{kind = "postgresql", url = "postgresql://me@no-such-host.invalid/x"}}
mistyped = {{kind = "postgresql", url_env = "MISTYPED_URL"}}
local = {{kind = "sqlite", path = "there/x.db"}}
missing = {{kind = "duckdb", path = "nowhere/x.db"}}
exports = {{kind = "store", url = "there"}}
lost = {{kind = "store", url = "nowhere"}}
lake = {{kind = "store", url = "unknown://x"}}
crm = {{kind = "http", origin = "{gateway.url}", headers_env = "CRM_HEADERS"}}
broken = {{kind = "http", origin = "{gateway.url}", headers_env = "BROKEN_HEADERS"}}
""")
    found = doctor(
        CELERIAC_CONNECTIONS_FILE=str(file),
        WAREHOUSE_URL=f"postgresql://me:{IN_URL}@127.0.0.1:{closed}/x",
        MISTYPED_URL=f"mysql://me:{IN_URL}@127.0.0.1/x",
        CRM_HEADERS=json.dumps({"Authorization": PASSWORD}),
        BROKEN_HEADERS=PASSWORD,
    )
    said = {one["check"].removeprefix("connection "): (one["outcome"], one["message"]) for one in found["checks"]}
    assert said["warehouse"] == ("fail", f"127.0.0.1:{closed} does not answer: Connection refused.")
    assert said["elsewhere"] == ("warn", "ELSEWHERE_URL is not set in this environment.")
    assert said["plain"] == ("fail", "The host no-such-host.invalid is not known here.")
    assert said["mistyped"] == ("fail", "MISTYPED_URL is not a postgresql:// URL.")
    assert said["local"] == ("ok", f"file {tmp_path}/there/x.db, not there yet")
    assert said["missing"] == ("fail", f"{tmp_path}/nowhere is not a folder.")
    assert (said["exports"][0], said["lost"][0], said["lake"][0]) == ("ok", "fail", "fail")
    assert said["crm"] == ("ok", f"127.0.0.1:{gateway.port} listens")
    assert said["broken"] == ("fail", "BROKEN_HEADERS is not a JSON object.")
    file.write_text('x = {kind = "postgresql", url = "postgresql://me:hunter2@host/x"}')
    assert of(doctor(CELERIAC_CONNECTIONS_FILE=str(file)), "connections")[0][0] == "fail"


def test_a_gateway_with_another_ledger(doctor: Doctor, gateway: Server, lonely: Server) -> None:
    """The command and the gateway have different settings: what it says of workers is not theirs."""
    found = doctor(CELERY_BROKER_URL=lonely.redis_url, CELERIAC_URL=gateway.url)
    assert "so it has another one" in of(found, "gateway")[-1][1]
    assert of(found, "workers")[0][0] == "fail"


@pytest.mark.parametrize("url", ["amqp://me:hunter2@127.0.0.1:{port}//", "redis://:hunter2@127.0.0.1:{port}/0"])
def test_a_broker_beside_the_ledger_that_is_away(doctor: Doctor, own_valkey: Server, url: str) -> None:
    """The ledger is well, and the line of the broker says what is wrong."""
    found = doctor(CELERY_BROKER_URL=url.format(port=free_port()), CELERIAC_LEDGER_URL=own_valkey.redis_url)
    assert of(found, "ledger")[0][0] == "ok"
    ((outcome, said),) = of(found, "broker")
    assert (outcome, "fix" in said, "Connection refused" in said) == ("fail", True, True), said


@pytest.mark.parametrize(("ahead_s", "outcome"), [(0.5, "ok"), (-20, "warn"), (120, "fail")])
def test_clocks_that_differ(  # noqa: PLR0917 - the case
    doctor: Doctor, gateway: Server, own_valkey: Server, monkeypatch: pytest.MonkeyPatch, ahead_s: float, outcome: str
) -> None:
    """Of this machine, whose clock the test moves, and of a worker that says so in its heartbeat."""
    moved = SimpleNamespace(time=lambda: time.time() - ahead_s, monotonic=time.monotonic)
    monkeypatch.setattr(servers, "time", moved)
    with redis.Redis(port=own_valkey.port, decode_responses=True) as client:
        ledger = Ledger(client)
        about = {
            "name": "far@away", "host": "h", "pid": 1, "families": [], "concurrency": 1, "started_at": 0,
            "versions": {"celeriac": "0.0.1", "celery": "5", "python": "3"}, "is_stopping": False,
        }  # fmt: skip
        clock_ms = int(1000 * (time.time() + 4 * ahead_s))
        beat = {"owner": "far", "about": json.dumps(about), "queues": [], "kinds": [], "jobs": []}
        ledger.call("beat", {**beat, "clock_ms": clock_ms, "lease_ms": 60_000, "keep_ms": 60_000})
        try:
            found = doctor(CELERIAC_URL=gateway.url)
        finally:
            ledger.call("leave", {"owner": "far"})
    clocks = of(found, "clock")
    assert clocks[0][0] == outcome, clocks
    assert clocks[1][0] == "ok"  # the gateway has the clock of this machine
    assert [each for each, _ in clocks[2:]] == ([] if outcome == "ok" else ["fail"])
    assert "far@away has version 0.0.1" in of(found, "versions")[-1][1]


def test_a_worker_that_was_killed(
    doctor: Doctor, gateway: Server, workers: Crew, own_valkey: Server, tmp_path: Path
) -> None:
    """It is named as lost, and a queue in which jobs wait for it is a failure."""
    killed = workers.workers[0]
    killed.kill()
    with redis.Redis(port=own_valkey.port, decode_responses=True) as client:
        wait_for(lambda: all(worker.is_lost for worker in workers_of(Ledger(client))), "the loss of the worker")
    Jobs(gateway).submit("acme.take_note", {"notebook": str(tmp_path / "n.txt")})
    found = doctor(CELERIAC_URL=gateway.url)
    assert of(found, "worker w0@test")[0][0] == "warn"
    assert "None is running, so no job is." in of(found, "workers")[0][1]
    ((outcome, said),) = of(found, "queue etl")
    assert (outcome, "No worker takes its jobs; 1 waiting" in said) == ("fail", True)
    with redis.Redis(port=own_valkey.port) as client:
        client.hset("celeriac:paused", "report", int(1000 * time.time()))
        assert "celeriac queues resume report" in of(doctor(CELERIAC_URL=gateway.url), "queue report")[0][1]
