"""Check that a broker is safe for jobs, and show its URL without secrets."""

from __future__ import annotations

from typing import Any

from shared.errors import DefinitionError
from shared.texts import redact


def refuse_unsafe(client: Any, *, allow_volatile: bool = False) -> None:
    """Refuse a Redis that would lose accepted jobs: eviction, or no append-only file.

    `allow_volatile` skips the check of the append-only file. A server that hides its configuration (a managed one)
    is accepted. Raises `DefinitionError` with the remedy.
    """
    memory = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise DefinitionError(
            f"The ledger's Redis evicts keys under memory pressure (maxmemory-policy {policy}), so accepted jobs could "
            "vanish. Run: redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    if not allow_volatile and not client.info("persistence").get("aof_enabled", 0):
        raise DefinitionError(
            "The ledger's Redis has no append-only file, so a restart would lose accepted jobs. "
            "Run: redis-cli CONFIG SET appendonly yes, or set CELERIAC_ALLOW_VOLATILE_BROKER=true if you accept that."
        )


def safe_url(url: str) -> str:
    """Return `url` without user and password."""
    return redact(url)
