"""Make a key past HTTP, on the machine of the ledger: the first one, and one for who has lost all others."""

from __future__ import annotations

import redis

from shared.access.keyring import Full, NewKey, write_key
from shared.access.terms import KeyTerms
from shared.broker.settings import BrokerSettings
from shared.environment import read
from shared.errors import DefinitionError
from shared.ledger.client import Ledger
from shared.ledger.server import bounded
from shared.texts import redact


class NotWritten(Exception):
    """No key was made."""


def write_here(terms: KeyTerms, ledger_url: str | None = None) -> NewKey:
    """Make a key in this ledger, by default that of the environment's settings. Raises `NotWritten`."""
    try:
        url = ledger_url or read(BrokerSettings).ledger_url
        with redis.Redis.from_url(url, **bounded()) as client:
            return write_key(Ledger(client), terms)
    except DefinitionError as wrong:
        raise NotWritten(str(wrong)) from None
    except Full:
        raise NotWritten("There are as many keys as there may be.") from None
    except redis.RedisError as failure:
        raise NotWritten(f"The ledger {redact(url)} does not respond: {redact(str(failure))}.") from None
