"""Check the addresses that a worker may connect to for a client: public ones and those on the operator's list."""

from __future__ import annotations

import ipaddress
import socket

from shared.connections.addresses import AllowedHosts, is_public
from shared.errors import TaskFailure, TransientFailure

__all__ = ["AllowedHosts", "is_public", "resolve"]


def resolve(host: str, port: int, allowed: AllowedHosts) -> list[str]:
    """Return the checked addresses of `host`: the caller must connect to these and not resolve the name again.

    Raises `TaskFailure` (``address_refused``) if any of them is internal and not allowed: a name with both kinds is
    an attack or a mistake. Raises `TransientFailure` (``host_unresolved``) if there is none.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failed:
        raise TransientFailure(
            "host_unresolved", f"The host {host!r} has no address: {failed}.", remedy="Correct the host name."
        ) from None
    found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    for text in found:
        if not allowed.allows(host, ipaddress.ip_address(text), port):
            raise TaskFailure(
                "address_refused",
                f"The host {host!r} has an internal address, which jobs must not access.",
                remedy="Use a public host, or add it to CELERIAC_HTTP_ALLOW_HOSTS on the workers.",
            )
    return found
