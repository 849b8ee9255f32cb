"""Which addresses a worker connects to for a client: those that the operator's list and the public internet allow."""

from __future__ import annotations

import ipaddress
import socket

from shared.connections.addresses import AllowedHosts, is_public
from shared.errors import TaskFailure, TransientFailure

__all__ = ["AllowedHosts", "is_public", "resolve"]


def resolve(host: str, port: int, allowed: AllowedHosts) -> list[str]:
    """Return the addresses of `host`, all of them checked: the caller connects to these and asks no more.

    Raises `TaskFailure` (``address_refused``) if even one of them is internal and not allowed: a name that
    mixes both is an attack or a mistake. Raises `TransientFailure` (``host_unresolved``) if there is none.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failed:
        raise TransientFailure(
            "host_unresolved", f"The host {host!r} has no address: {failed}.", remedy="Check the host name."
        ) from None
    found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    for text in found:
        if not allowed.allows(host, ipaddress.ip_address(text), port):
            raise TaskFailure(
                "address_refused",
                f"The host {host!r} is at an internal address, which jobs may not reach.",
                remedy="Use a public host, or have it added to CELERIAC_HTTP_ALLOW_HOSTS of the workers.",
            )
    return found
