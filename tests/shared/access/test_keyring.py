"""What the ledger has of a key comes back as it was."""

from __future__ import annotations

from shared.access.callers import UNRESTRICTED, Restrictions
from shared.access.keyring import write_key
from shared.access.scopes import ALL
from shared.access.terms import DAY_S, KeyTerms
from shared.ledger.client import Ledger


def test_restrictions_that_restrict_nothing_are_the_one_that_does(ledger: Ledger) -> None:
    """So that the jobs of such a key are not looked at."""
    terms = KeyTerms("default", "n", ALL, Restrictions(), "test", DAY_S)
    assert write_key(ledger, terms).record.restrictions is UNRESTRICTED
    narrow = Restrictions(kinds=["etl.*"])
    assert write_key(ledger, terms._replace(restrictions=narrow)).record.restrictions == narrow
