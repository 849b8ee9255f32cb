"""On which sockets this process listens: once there is one, the gateway looks no more."""

from __future__ import annotations

import socket
from pathlib import Path

from api.access.guard import is_local
from api.access.listening import _listening


def test_a_socket_in_the_file_system_is_seen_and_only_this_machine_reaches_it(tmp_path: Path) -> None:
    """Else a gateway behind one would look at all its connections ten times a second, for ever."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)
        assert path not in _listening()
        one.listen()
        assert path in _listening()
        assert is_local((path, None))
    assert path not in _listening()


def test_a_socket_of_the_internets_protocols_is_seen_by_its_address() -> None:
    """Also one of IPv6, whose name has four parts."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as one:
            one.bind((address, 0))
            one.listen()
            assert address in _listening()
