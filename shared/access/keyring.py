"""The keys in the ledger, and the calls that change them.

`Keyring` is for the gateway, `write_key` for a program on the machine of the ledger. Both run the ledger's script
(`script/service/access.lua`).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from shared.access.callers import UNRESTRICTED, Caller, Restrictions
from shared.access.scopes import Scope
from shared.access.secrets import digest, new_id, new_secret
from shared.access.terms import KeyTerms
from shared.ledger.aclient import AsyncLedger
from shared.ledger.client import Ledger

MAX_KEYS = 10_000  # of all tenants; revoked ones count, because what they did is on record
USED_EVERY_MS = 60_000  # at most once in this time is written when a key was used

Standing = Literal["valid", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the ledger has it, without its text. Times are milliseconds since 1970 by the ledger's clock."""

    id: str
    digest: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    restrictions: Restrictions
    created_by: str
    created_at: int
    expires_at: int
    last_used_at: int | None = None
    revoked_at: int | None = None
    former_digest: str = ""  # of the secret before a roll
    former_until: int = 0

    def standing(self, now_ms: int) -> Standing:
        """Return whether it may be used at this time."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now_ms < self.expires_at else "expired"

    def has_secret(self, of_text: str, now_ms: int) -> bool:
        """Return whether a text with this digest is this key's, or was before a roll whose overlap lasts."""
        former = self.former_digest if now_ms < self.former_until else ""
        is_former = hmac.compare_digest(of_text, former)
        return hmac.compare_digest(of_text, self.digest) or is_former

    @property
    def caller(self) -> Caller:
        """Who shows this key."""
        return Caller(self.tenant, self.id, self.scopes, self.restrictions)


class Looked(NamedTuple):
    """What the ledger says of one id, and in general, at the time `now_ms` by its clock."""

    now_ms: int
    has_keys: bool
    key: KeyRecord | None


class NewKey(NamedTuple):
    """A key with the text that is shown once."""

    text: str
    record: KeyRecord


class Full(Exception):
    """There are as many keys as there may be."""


class Keyring:
    """The calls of the gateway. They raise `LedgerUnavailable` and `OutcomeUnknown` like all of the ledger."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def look(self, key_id: str) -> Looked:
        """Look up a key, and whether there is any."""
        return _looked(await self._ledger.call("access", {"id": key_id}))

    async def create(self, terms: KeyTerms) -> NewKey:
        """Make a key. Raises `Full`."""
        while True:
            key_id = new_id()
            text = new_secret(key_id)
            outcome, *flat = await self._ledger.call("key_put", _arguments(key_id, text, terms))
            if made := _made(text, outcome, flat):
                return made

    async def roll(self, key_id: str, *, overlap_s: float, expires_in_s: float | None) -> NewKey | Standing:
        """Give a key a new secret; the present one stays valid for `overlap_s`. It may be revoked or expired."""
        text = new_secret(key_id)
        arguments: dict[str, Any] = {"id": key_id, "digest": digest(text), "overlap_ms": int(overlap_s * 1000)}
        if expires_in_s is not None:
            arguments["expires_in_ms"] = int(expires_in_s * 1000)
        outcome, *flat = await self._ledger.call("key_roll", arguments)
        return NewKey(text, _record(flat)) if outcome == "ok" else outcome

    async def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key that exists, for good. Revoking it again changes nothing."""
        return _record(await self._ledger.call("key_revoke", {"id": key_id}))

    async def used(self, key_id: str) -> None:
        """Record that a key is used now."""
        await self._ledger.call("key_used", {"id": key_id, "every_ms": USED_EVERY_MS})

    async def list(self, tenant: str, *, limit: int, before: str | None = None) -> Sequence[KeyRecord]:
        """Return at most `limit` keys of a tenant, newest first; only those behind the place `before`."""
        arguments: dict[str, Any] = {"tenant": tenant, "limit": limit} | ({"before": before} if before else {})
        return [_record(flat) for flat in await self._ledger.call("keys", arguments)]


def write_key(ledger: Ledger, terms: KeyTerms) -> NewKey:
    """Make a key past HTTP. Raises `Full`, and Redis errors as they are."""
    while True:
        key_id = new_id()
        text = new_secret(key_id)
        outcome, *flat = ledger.call("key_put", _arguments(key_id, text, terms))
        if made := _made(text, outcome, flat):
            return made


def place_of(record: KeyRecord) -> str:
    """Return the place of a key in the list of its tenant, for `Keyring.list`."""
    return f"{record.created_at:015d}/{record.id}"


def _arguments(key_id: str, text: str, terms: KeyTerms) -> Mapping[str, Any]:
    return {
        "id": key_id,
        "digest": digest(text),
        "tenant": terms.tenant,
        "name": terms.name,
        "scopes": " ".join(sorted(terms.scopes)),
        "restrictions": terms.restrictions.model_dump_json(exclude_none=True),
        "created_by": terms.created_by,
        "expires_in_ms": int(terms.expires_in_s * 1000),
        "most": MAX_KEYS,
    }


def _made(text: str, outcome: str, flat: Sequence[str]) -> NewKey | None:
    """Return the key that was made; None if another one has this id."""
    if outcome == "full":
        raise Full
    return NewKey(text, _record(flat)) if outcome == "ok" else None


def _looked(reply: Any) -> Looked:
    now, count, *flat = reply
    return Looked(int(now), int(count) > 0, _record(flat) if flat else None)


def _record(flat: Sequence[str]) -> KeyRecord:
    values = dict(zip(flat[::2], flat[1::2], strict=True))
    known = {scope.value for scope in Scope}  # a later version may have others
    restrictions = Restrictions.model_validate_json(values["restrictions"])

    def ms(name: str) -> int | None:
        return int(values[name]) if name in values else None

    return KeyRecord(
        id=values["id"],
        digest=values["digest"],
        tenant=values["tenant"],
        name=values["name"],
        scopes=frozenset(Scope(scope) for scope in values["scopes"].split() if scope in known),
        restrictions=UNRESTRICTED if restrictions == UNRESTRICTED else restrictions,
        created_by=values["created_by"],
        created_at=int(values["created_at"]),
        expires_at=int(values["expires_at"]),
        last_used_at=ms("last_used_at"),
        revoked_at=ms("revoked_at"),
        former_digest=values.get("former_digest", ""),
        former_until=ms("former_until") or 0,
    )
