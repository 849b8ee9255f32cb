"""The sockets that this process listens on: what is checked is them, not a setting that says what they should be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from api.access.guard import is_local
from api.access.known import KnownKeys
from api.background import in_background
from api.settings import GatewaySettings
from shared.errors import DefinitionError

_DESCRIPTORS = Path("/dev/fd")  # of this process, on Linux and macOS
_LOOK_EVERY_S = 0.1
_log = structlog.get_logger(__name__)


def _exposed_address() -> str | None:
    """Return an address on which this process listens to other machines; None if there is none."""
    return next((address for address in _listening() if not is_local((address, None))), None)


def _refusal(address: str) -> str:
    """Return why the gateway does not listen on this address, and what to do."""
    return (
        f"The gateway would listen on {address}, and no key is asked for yet. Make the first one with `celeriac keys "
        "create --preset admin` on the machine of the ledger, or bind 127.0.0.1; or set "
        "CELERIAC_ALLOW_UNAUTHENTICATED=true behind a proxy that asks."
    )


def refuse_open_door(keys: KnownKeys) -> None:
    """Raise `DefinitionError` if the process listens to other machines, and the ledger says that it has no key."""
    if keys.has_keys is False and (address := _exposed_address()) is not None:
        raise DefinitionError(_refusal(address))


@asynccontextmanager
async def behind_its_door(settings: GatewaySettings, keys: KnownKeys) -> AsyncIterator[None]:
    """Run the block only where nobody comes in who should be asked. Raises `DefinitionError`.

    Where another program asks, nothing is checked.
    """
    if settings.allow_unauthenticated:
        yield
        return
    refuse_open_door(keys)
    async with in_background(_end_open_door(keys)):
        yield


async def _end_open_door(keys: KnownKeys) -> None:
    """End the process when it comes to listen to other machines, and nobody is asked for a key.

    A server binds its socket after the application has started. No request comes in meanwhile: see `guard`.
    """
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        if keys.has_keys is not None and _listening():
            break
    try:
        refuse_open_door(keys)
    except DefinitionError as refused:
        _log.critical("not started", why=str(refused))
        signal.raise_signal(signal.SIGTERM)


def _listening() -> list[str]:
    """Return the addresses of all sockets of this process that take connections; of those in the file system, the name.

    With a thousand connections this takes 8 ms.
    """
    found = []
    for one in list(_DESCRIPTORS.iterdir()):
        with suppress(OSError):  # closed meanwhile
            found += _listening_at(int(one.name))
    return found


def _listening_at(descriptor: int) -> list[str]:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return []
    with socket.socket(fileno=os.dup(descriptor)) as one:
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return []
        name = one.getsockname()
        return [str(name[0] if isinstance(name, tuple) else name)]
