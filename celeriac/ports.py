"""Ports of the loopback address that are free."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST_PORT, _EPHEMERAL_PORTS_BEGIN = 15_000, 32_768
_CHANCE = random.SystemRandom()


def free_port() -> int:
    """Return an unused port of the loopback address.

    It is below those that the kernel gives to outgoing connections: one of these might have it a moment later, before
    the program that it is meant for listens.
    """
    while True:
        port = _CHANCE.randrange(_LOWEST_PORT, _first_ephemeral_port())
        with suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux
        return _EPHEMERAL_PORTS_BEGIN
