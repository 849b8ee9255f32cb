"""A real RabbitMQ for tests: a node of its own on free ports of 127.0.0.1, with an Erlang port mapper of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers.absent import absent
from tests.support.servers.services import free_port, wait_for

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's; the one on PATH changes the user
_CONTROL = _SERVER.with_name("rabbitmqctl")
_START_BOUND_S = 90.0
_ENVIRONMENT = "environment.json"


def require_rabbitmq() -> None:
    """Skip the test where RabbitMQ is not installed; where CI=true it has to be."""
    if _SERVER.exists() and shutil.which("epmd"):
        return
    absent("RabbitMQ is not installed (Debian: rabbitmq-server)")


@contextmanager
def rabbitmq_server(folder: Path) -> Iterator[str]:
    """Yield the URL of an empty RabbitMQ."""
    folder.mkdir(parents=True)
    (folder / "plugins").write_text("[].")
    port, mapper_port = free_port(), free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # for the cookie of Erlang
        "RABBITMQ_NODENAME": f"celeriac-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    (folder / _ENVIRONMENT).write_text(json.dumps(env))
    log = folder / "out.log"
    with log.open("wb") as output:
        process = subprocess.Popen([_SERVER], env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(lambda: _listens(port) or process.poll() is not None, "RabbitMQ", bound_s=_START_BOUND_S)
        assert process.poll() is None, log.read_text()
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        process.terminate()
        process.wait(_START_BOUND_S)
        subprocess.run(["epmd", "-kill"], env=env, check=False, capture_output=True, timeout=_START_BOUND_S)


def unacknowledged(folder: Path) -> int:
    """Return how many messages of the RabbitMQ in `folder` its consumers have and have not acknowledged."""
    command = [str(_CONTROL), "--quiet", "list_queues", "messages_unacknowledged", "--no-table-headers"]
    env = json.loads((folder / _ENVIRONMENT).read_text())
    asked = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_START_BOUND_S, check=True)
    return sum(int(line) for line in asked.stdout.split())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
