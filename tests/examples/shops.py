"""The service of the shops in `examples`: a real gateway that knows their job, a worker that runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from tests.support.servers.absent import absent
from tests.support.servers.services import Server, free_port, gateway_server, http_client
from tests.support.servers.workers import Jobs, crew
from tests.support.up import ROOT

EXAMPLES = ROOT / "examples"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of the tests
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - likewise
_QUEUE = "shop"


@dataclass(frozen=True)
class ShopService:
    """What a shop needs: a gateway, and a port of its own that the workers may call back."""

    jobs: Jobs
    port: int
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a shop on this service."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("CELER")}
        return {
            **ours,
            "PYTHONPATH": f"{ROOT}:{EXAMPLES}",
            "CELERIAC_URL": self.jobs.gateway.url,
            "CELERIAC_QUEUES": _QUEUE,
            "CELERIAC_WEBHOOK_SECRET": SECRET,
            "CELERIAC_CALLBACK_URL": f"http://127.0.0.1:{self.port}/celeriac/callbacks/",
        }

    def pause(self, *, goes_on: bool = False) -> None:
        """Let the jobs of the shop wait, or no longer."""
        what = "resume" if goes_on else "pause"
        assert http_client.post(f"{self.jobs.gateway.url}/queues/{_QUEUE}/{what}").is_success

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the jobs of the shop wait as long as the block lasts."""
        self.pause()
        try:
            yield
        finally:
            self.pause(goes_on=True)

    def all_jobs(self) -> list[dict[str, Any]]:
        """Return the jobs of the shop, newest first."""
        answer = http_client.get(f"{self.jobs.gateway.url}/jobs", params={"kind": "shop.write_invoice"})
        return list(answer.json()["jobs"])


def needs(framework: str) -> None:
    """Skip the test where the framework is not installed."""
    if find_spec(framework) is None:
        absent(f"{framework} is not installed: pip install 'celeriac[{framework}]'")


@contextmanager
def shop_service(folder: Path, valkey: Server) -> Iterator[ShopService]:
    """Run gateway and worker on an empty ledger as long as the block lasts."""
    port = free_port()
    env = {
        "CELERY_BROKER_URL": valkey.redis_url,
        "CELERIAC_STORE_URL": str(folder / "store"),
        "CELERIAC_CONTRACTS": "shared.jobs.callbacks,shop_jobs.contracts",
        "CELERIAC_TASKS": "shop_jobs.tasks",
        "CELERIAC_QUEUES": _QUEUE,
        "CELERIAC_WEBHOOK_SECRET": SECRET,
        "CELERIAC_HTTP_ALLOW_HOSTS": f"127.0.0.1:{port}",
        "PYTHONPATH": str(EXAMPLES),
    }
    with crew(folder, **env) as workers, gateway_server(folder, **env) as gateway:
        workers.start(WORKER_FAMILIES="callbacks", concurrency=2)
        yield ShopService(Jobs(gateway), port, folder)


def signed(
    told: Mapping[str, Any], *, secret: str = SECRET, age: timedelta = timedelta()
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a callback that says this of a job."""
    body, at = json.dumps({"type": f"job.{told['state']}", "data": told}), datetime.now(UTC) - age
    signature = Webhook(secret).sign(f"msg_{told['id']}", at, body)
    return body.encode(), {
        "content-type": "application/json",
        "webhook-id": f"msg_{told['id']}",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }


def forged(told: Mapping[str, Any]) -> list[tuple[bytes, dict[str, str]]]:
    """Return callbacks that say this and that nobody may believe."""
    body, headers = signed(told)
    return [
        signed(told, secret=OTHER_SECRET),
        (body + b" ", headers),
        signed(told, age=timedelta(minutes=6)),
        (body, {"content-type": "application/json"}),
        *((body, {**headers, "webhook-signature": wrong}) for wrong in ("", "v1", "v1,!", "v2,AAAA", "v1,AAAA x")),
        *((body, {**headers, "webhook-timestamp": wrong}) for wrong in ("soon", "inf", "9" * 400)),
        (b"\xff", headers),
    ]


def ran(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of a shop to its end."""
    return subprocess.run(
        command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False, timeout=120
    )
