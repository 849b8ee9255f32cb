"""Check that a broker is safe for jobs, and show its URL without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.errors import DefinitionError
from shared.texts import redact


class Danger(NamedTuple):
    """Why a Redis could lose accepted jobs."""

    what: str
    remedy: str


def eviction(memory: Mapping[str, Any]) -> Danger | None:
    """Return the danger of a Redis that removes keys; `memory` is this section of INFO."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return None
    return Danger(
        f"The ledger's Redis evicts keys under memory pressure (maxmemory-policy {policy}), so accepted jobs could "
        "vanish.",
        "Run: redis-cli CONFIG SET maxmemory-policy noeviction",
    )


def volatility(persistence: Mapping[str, Any]) -> Danger | None:
    """Return the danger of a Redis without an append-only file; `persistence` is this section of INFO."""
    if persistence.get("aof_enabled", 0):
        return None
    return Danger(
        "The ledger's Redis has no append-only file, so a restart would lose accepted jobs.",
        "Run: redis-cli CONFIG SET appendonly yes, or set CELERIAC_ALLOW_VOLATILE_BROKER=true if you accept that.",
    )


def refuse_unsafe(client: Any, *, allow_volatile: bool = False) -> None:
    """Refuse a Redis that would lose accepted jobs: eviction, or no append-only file.

    `allow_volatile` skips the check of the append-only file. A server that hides its configuration (a managed one)
    is accepted. Raises `DefinitionError` with the remedy.
    """
    danger = eviction(client.info("memory"))
    if danger is None and not allow_volatile:
        danger = volatility(client.info("persistence"))
    if danger is not None:
        raise DefinitionError(f"{danger.what} {danger.remedy}")


def safe_url(url: str) -> str:
    """Return `url` without user and password."""
    return redact(url)
