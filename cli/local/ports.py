"""Ports of the loopback address that somebody chose."""

from __future__ import annotations

import socket

from celeriac.ports import HOST


class CannotStart(Exception):
    """The service cannot start here; the text says why and what to do."""


def refuse_taken_port(port: int, option: str) -> None:
    """Raise `CannotStart` if something listens on `port` of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT counts as free
        try:
            probe.bind((HOST, port))
        except OSError as taken:
            raise CannotStart(
                f"Port {port} of {HOST} cannot be used ({taken.strerror}). "
                f"Stop the program that uses it, or choose another port with {option}."
            ) from None
