"""Check the hosts that a client names: public addresses, and those that an operator allows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are the IPv4 address
_NEVER_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # carrier-grade NAT; a metadata service of Alibaba Cloud
        "192.0.0.0/24",  # protocol assignments; a metadata service of Oracle Cloud
        "168.63.129.16/32",  # Azure's platform service, although in a public range
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4-compatible, deprecated
        "64:ff9b:1::/48",  # NAT64 of a local network
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local, deprecated
    )
)
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


def is_public(address: Address) -> bool:
    """Return whether `address` is public; an IPv4 address embedded in IPv6 is checked as such."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    return address.is_global and not special and not any(address in network for network in _NEVER_PUBLIC)


@dataclass(frozen=True)
class AllowedHosts:
    """The internal hosts that an operator allows; port None means any port."""

    names: frozenset[tuple[str, int | None]]
    networks: tuple[tuple[Network, int | None], ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> AllowedHosts:
        """Read entries such as ``files.internal``, ``10.0.0.0/8``, ``127.0.0.1:8080`` and ``[::1]:8080``.

        Raises `ValueError` with the invalid entry.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        for entry in entries:
            host, port = _split_port(entry)
            try:
                networks.append((ipaddress.ip_network(host), port))
            except ValueError:
                if not _HOST.fullmatch(host.lower()) or re.fullmatch(r"[0-9./]+", host):
                    raise ValueError(
                        f"{entry!r} is not a host name, address or CIDR (with an optional :port)"
                    ) from None
                names.add((_normal(host), port))
        return cls(frozenset(names), tuple(networks))

    def allows(self, host: str, address: Address, port: int) -> bool:
        """Return whether a connection to `address`, which `host` resolved to, is allowed."""
        return self.lists(host, address, port) or is_public(address)

    def lists(self, host: str, address: Address | None, port: int) -> bool:
        """Return whether the operator allows `host`, or its `address`."""
        if any((_normal(host), allowed) in self.names for allowed in (port, None)):
            return True
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        seen = mapped or address
        return seen is not None and any(
            seen in network and allowed in {port, None} for network, allowed in self.networks
        )


def _normal(host: str) -> str:
    return host.lower().rstrip(".")


def _split_port(entry: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[(?P<host>[^\]]+)\](:(?P<port>[0-9]{1,5}))?", entry)
    plain = re.fullmatch(r"(?P<host>[^:]+)(:(?P<port>[0-9]{1,5}))?", entry)
    match = bracketed or plain
    if match is None:
        return entry, None  # an IPv6 address or network without brackets
    return match["host"], int(match["port"]) if match["port"] else None
