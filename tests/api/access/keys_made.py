"""Keys for tests, written past HTTP as `celeriac keys create` does, and changed in the ledger where time would take."""

from __future__ import annotations

from typing import Any

import redis

from shared.access.callers import DEFAULT_TENANT, UNRESTRICTED, Restrictions
from shared.access.keyring import write_key
from shared.access.scopes import ALL, Scope
from shared.access.terms import EXPIRES_IN_S, KeyTerms
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from tests.support.servers.services import Server


class KeyMaker:
    """Makes keys in the ledger of a Valkey."""

    def __init__(self, valkey: Server) -> None:
        self.client = redis.Redis(port=valkey.port, decode_responses=True)
        self.ledger = Ledger(self.client)

    def make(
        self, *scopes: Scope | str, restrictions: Restrictions = UNRESTRICTED, expires_in_s: float = EXPIRES_IN_S
    ) -> str:
        """Return the text of a new key; without scopes it has all."""
        terms = KeyTerms(
            DEFAULT_TENANT, "of a test", frozenset(map(Scope, scopes)) or ALL, restrictions, "test", expires_in_s
        )
        return write_key(self.ledger, terms).text

    def without_scopes(self) -> str:
        """Return the text of a key that allows nothing, which no call makes."""
        text = self.make()
        self.client.hset(key("access_key", text[4:12]), "scopes", "")
        self.client.publish(key("access"), text[4:12])
        return text

    def revoked(self) -> str:
        """Return the text of a revoked key."""
        text = self.make()
        self.ledger.call("key_revoke", {"id": text[4:12]})
        return text

    def expired(self) -> str:
        """Return the text of a key that has expired."""
        text = self.make()
        self.client.hset(key("access_key", text[4:12]), "expires_at", 1)
        self.client.publish(key("access"), text[4:12])
        return text

    def record(self, text: str) -> dict[str, str]:
        """Return what the ledger has of a key."""
        found: Any = self.client.hgetall(key("access_key", text[4:12]))
        return dict(found)


def bearer(text: str) -> dict[str, str]:
    """Return the header that shows a key."""
    return {"Authorization": f"Bearer {text}"}
