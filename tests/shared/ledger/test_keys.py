"""One list of all keys, and a prefix that keeps two services in one database apart."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from pydantic import ValidationError

from shared.ledger.client import Ledger
from shared.ledger.keys import KEYS, Keys, KeySettings
from shared.ledger.records import Submission, Unknown
from tests.support.keys import stray_keys
from tests.support.ledgers import RESULT, claimed, entry, record, tended, workflow

ALICE, BOB = Keys("alice:"), Keys("bob.")


def test_names_that_stand_for_one_key_are_not_taken_for_a_family() -> None:
    """Every entry finds its own keys first, or the check of types would compare with another's."""
    for name, said in KEYS.items():
        if said.type != "channel":
            example = {"chord_results": "x.j", "chord_members": "x.d"}.get(name, "abc") if said.is_family else ""
            assert Keys().entries_of(Keys()(name, example))[0] == said, name


def test_two_services_share_a_database_and_do_not_touch_each_other(client: redis.Redis, valkey: Any) -> None:
    """Neither sees, runs, ends or forgets the other's jobs; each has its own lists, results, counters and keeper."""
    with redis.Redis(port=valkey.port, db=1, decode_responses=True) as shared:
        shared.flushdb()
        alice, bob = Ledger(shared, keys=ALICE), Ledger(shared, keys=BOB)
        hers, his = entry(), workflow(["a", "b"], {"b": ["a"]})
        alice.accept(Submission([hers]))
        bob.accept(Submission([his]))
        assert (alice.read(his.id), bob.read(hers.id)) == (Unknown(), Unknown())
        assert shared.keys("etl*") == []
        assert shared.llen(ALICE("list", "etl\x06\x165")) == shared.llen(BOB("list", "etl\x06\x165")) == 1
        alice.succeed(hers.id, token=claimed(alice, hers.id).token, result=RESULT)
        assert shared.exists(ALICE("result", hers.id)) == 1
        shared.zadd(ALICE("ended"), {hers.id: 1})
        assert tended(alice) == [("forgotten", hers.id)]
        assert tended(bob) == []
        assert record(bob, his.id).state == "queued"
        assert stray_keys(shared, keys=[ALICE, BOB]) == []
        assert not any(name.startswith(("celeriac:", "celery-", "etl")) for name in shared.scan_iter())
        shared.flushdb()
    assert client.dbsize() == 0


@pytest.mark.parametrize("prefix", ["", "a", "it's:", "a b:", "x" * 64 + ":"])
def test_a_prefix_is_plain_and_ends_in_a_separator(prefix: str) -> None:
    """Celery ends its own prefix with one by itself, and the script has the names as they are."""
    with pytest.raises(ValidationError):
        KeySettings(prefix=prefix)


def test_a_key_that_nobody_listed_is_told(client: redis.Redis) -> None:
    """Of another name or type, or without the lifetime that it ought to have."""
    client.set("celeriac:invented", 1)
    client.set("celeriac:due", 1)
    client.set("celeriac:keeper", "w1")
    assert stray_keys(client) == [
        "'celeriac:due' is a string, and not a zset",
        "'celeriac:invented' is a string, and not a list",
        "'celeriac:keeper' has no time to live",
    ]
    client.flushall()
