"""What can be asked of an API key, for tests of every transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.ledger.client import Ledger


def asked_of_keys(ledger: Ledger) -> dict[str, list[Any]]:
    """Make an API key; return what can be asked of it."""
    made = {"id": "4Fh2kQ9x", "digest": "d", "tenant": "default", "name": "n", "scopes": "jobs:read"}
    put = made | {"restrictions": "{}", "created_by": "n", "expires_in_ms": 60_000, "most": 9}
    ledger.call("key_put", put)
    return {
        "access": [{"id": "4Fh2kQ9x"}],
        "keys": [{"tenant": "default", "limit": 9}],
        "key_put": [put | {"id": "5Fh2kQ9x"}],
        "key_roll": [{"id": "4Fh2kQ9x", "digest": "e", "overlap_ms": 1, "expires_in_ms": 60_000}],
        "key_revoke": [{"id": "4Fh2kQ9x"}],
        "key_used": [{"id": "4Fh2kQ9x", "every_ms": 1}],
    }
