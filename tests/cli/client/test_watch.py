"""Following a job survives what happens to the gateway meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from celeriac.client import Client
from cli.client.watch import follow
from shared.ledger.states import State
from tests.support.servers.services import Server, answers, free_port, http_client, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.integration

LATER = {
    "kind": "etl.extract_data",
    "params": {"source": {"kind": "http", "url": "https://example.com/sales.csv"}},
    "options": {"delay_s": 3_600},
}


class Seen:
    """A view that notes the states it is shown."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def show(self, job: Mapping[str, Any]) -> None:
        """Note the job's state."""
        self.states.append(job["state"])


@contextmanager
def gateway_on(port: int, valkey: Server, folder: Path) -> Iterator[Server]:
    """Run a gateway on a port of our choice, so that another can follow it there."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    live = answers(f"http://127.0.0.1:{port}/readyz")
    with running(command, folder, port=port, ready=live, env={"CELERY_BROKER_URL": valkey.redis_url}) as server:
        yield server


def test_a_wait_outlives_a_restart_of_the_gateway(valkey: Server, tmp_path: Path) -> None:
    """The gateway is killed under a waiting client and comes back: the client goes on and sees the end."""
    port = free_port()
    with gateway_on(port, valkey, tmp_path / "first") as first:
        job = http_client.post(f"{first.url}/jobs", json=LATER).raise_for_status().json()
        command = [sys.executable, "-m", "cli.app", "wait", job["id"], "--url", first.url]
        news = tmp_path / "news"
        with news.open("wb") as errors:
            client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        wait_for(lambda: "scheduled" in news.read_text(encoding="utf-8"), "the first look")
        first.process.send_signal(signal.SIGKILL)
    with gateway_on(port, valkey, tmp_path / "second") as second:
        http_client.post(f"{second.url}{job['links']['cancel']}").raise_for_status()
        printed, _ = client.communicate(timeout=300)
    assert client.returncode == 1, news.read_text(encoding="utf-8")
    assert f"{job['id']}  etl.extract_data  cancelled" in printed


def test_a_limit_ends_a_wait(gateway: Server) -> None:
    """With a time limit the job is returned as it is when that is over."""
    view = Seen()
    with Client(gateway.url) as client:
        job = follow(client, client.submit_many([LATER])[0].id, view, timeout_s=0.1)
    assert job.state is State.SCHEDULED
    assert set(view.states) == {"scheduled"}
