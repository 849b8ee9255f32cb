"""Dead letters over HTTP: list, read, requeue and delete. The workers' side is the test's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.ledger import dead_letters
from shared.ledger.dead_letters import KEPT_BYTES, MAX_LETTERS, DeadLetter, bury
from shared.ledger.ids import uuid7
from shared.ledger.keys import key

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server

BROKEN = b'{"body": "\xff"}'


@pytest.fixture
def client(empty_valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=empty_valkey.port, decode_responses=True) as client:
        yield client


def dead(client: redis.Redis, *, message: bytes = BROKEN, queue: str = "etl", retention_s: float = 60) -> str:
    """Keep a dead letter and return its id."""
    letter = DeadLetter(
        id=uuid7(),
        at=time.time_ns() // 1_000_000,
        queue=queue,
        reason="not_json",
        detail="It is not JSON.",
        worker="w1",
        message=message,
        size_bytes=len(message),
    )
    bury(client, letter, retention_s=retention_s)
    return letter.id


def listed(api: httpx.Client, **query: Any) -> tuple[list[str], str | None]:
    """Return a page's ids and the token of the next one."""
    answer = api.get("/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    return [letter["id"] for letter in page["dead_letters"]], page["next_page_token"]


def test_dead_letters_are_listed_newest_first_page_by_page(api: httpx.Client, client: redis.Redis) -> None:
    """Without their messages; the last page has no token."""
    ids = [dead(client) for _ in range(5)][::-1]
    first, token = listed(api, page_size=3)
    second, end = listed(api, page_size=3, page_token=token)
    assert (first + second, end) == (ids, None)
    (letter, *_) = api.get("/dead-letters").json()["dead_letters"]
    assert "message" not in letter
    assert (letter["queue"], letter["reason"], letter["worker"], letter["is_cut"]) == ("etl", "not_json", "w1", False)


def test_a_dead_letter_is_read_with_its_message(api: httpx.Client, client: redis.Redis) -> None:
    """As text, whatever its bytes are; something that is not an id is a 404."""
    letter = api.get(f"/dead-letters/{dead(client)}").json()
    assert (letter["message"], letter["size_bytes"]) == ('{"body": "\ufffd"}', len(BROKEN))
    for unknown in (uuid7(), "nothing"):
        assert api.get(f"/dead-letters/{unknown}").json()["code"] == "unknown_dead_letter"


def test_a_requeued_dead_letter_lies_in_its_queue_as_it_was(
    api: httpx.Client, client: redis.Redis, empty_valkey: Server
) -> None:
    """Byte by byte, once, and is no longer a dead letter."""
    letter = dead(client)
    assert api.post(f"/dead-letters/{letter}/requeue").status_code == 204
    with redis.Redis(port=empty_valkey.port) as raw:
        assert raw.lrange("etl", 0, -1) == [BROKEN]
    assert api.post(f"/dead-letters/{letter}/requeue").status_code == 404
    assert listed(api) == ([], None)
    client.delete("etl")


def test_a_deleted_dead_letter_is_gone(api: httpx.Client, client: redis.Redis) -> None:
    """With its message."""
    letter = dead(client)
    assert api.delete(f"/dead-letters/{letter}").status_code == 204
    assert api.delete(f"/dead-letters/{letter}").status_code == 404
    assert not client.exists(key("dead_letter", letter), key("dead_letters"))


def test_what_cannot_be_put_back_is_refused_with_the_reason(api: httpx.Client, client: redis.Redis) -> None:
    """A message of which only the beginning was kept, and one whose queue does not exist."""
    cut = dead(client, message=b"x" * (KEPT_BYTES + 1))
    assert api.get(f"/dead-letters/{cut}").json()["is_cut"] is True
    answer = api.post(f"/dead-letters/{cut}/requeue")
    assert (answer.status_code, answer.json()["code"]) == (409, "dead_letter_cut")
    elsewhere = dead(client, queue="elsewhere")
    answer = api.post(f"/dead-letters/{elsewhere}/requeue")
    assert (answer.status_code, answer.json()["code"]) == (409, "unknown_queue")


def test_dead_letters_are_bounded_in_number_and_time(
    api: httpx.Client, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are deleted first; expired ones are not listed; all are counted."""
    assert MAX_LETTERS == 1_000
    monkeypatch.setattr(dead_letters, "MAX_LETTERS", 3)
    ids = [dead(client) for _ in range(5)]
    assert listed(api)[0] == ids[:1:-1]
    assert client.zcard(key("dead_letters")) == len(client.keys(key("dead_letter", "*"))) == 3
    client.delete(key("dead_letter", ids[2]))  # as after its retention
    assert listed(api)[0] == ids[:2:-1]
    assert client.zcard(key("dead_letters")) == 2
    assert 'celeriac_dead_letters_total{reason="not_json"} 5.0' in api.get("/metrics").text
