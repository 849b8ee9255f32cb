"""What can be read, and the reason of what cannot."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from shared.broker.messages import Composer, MessageOptions
from shared.broker.reading import MAX_BYTES, Reason, Unreadable, check_envelope, check_task
from shared.broker.settings import BrokerSettings
from shared.broker.wrapping import unwrapped, wrapped
from shared.ledger.ids import uuid7
from tests.acme.contracts import TakeNote
from tests.support.mutations import POISON, Message


@pytest.fixture(scope="module")
def right() -> Message:
    composer = Composer(BrokerSettings(broker_url="redis://127.0.0.1:1/0"))
    text = composer.message(TakeNote, uuid7(), '{"notebook": "n"}', MessageOptions(5, 60, 90), queue="etl")
    message: Message = json.loads(text)
    return message


def read(raw: bytes) -> None:
    """Read a message as a worker does."""
    check_envelope(raw)
    message = json.loads(raw)
    try:
        body = json.loads(base64.b64decode(message["body"]))
    except ValueError as failure:
        raise Unreadable(Reason.BAD_BODY, failure) from failure
    check_task(message["headers"] or {}, body)


def test_the_messages_of_the_gateway_are_read(right: Message) -> None:
    """None of them is taken for broken."""
    read(json.dumps(right).encode())


LEFT_TO_CELERY = {"a start that is not a time", "an unknown compression", "an unknown content type"}


@pytest.mark.parametrize("name", sorted(POISON.keys() - LEFT_TO_CELERY))
def test_poison_is_told(right: Message, name: str) -> None:
    """With a reason and what is wrong, in a text that can be stored."""
    with pytest.raises(Unreadable) as found:
        read(POISON[name](right))
    assert found.value.detail
    assert found.value.detail.encode()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"id": "1", "task": "a.b"}, [[], {}, {}]),
        (
            {"id": "1", "task": "a.b", "timelimit": [None, 5], "retries": 3, "group": None},
            [[1], {"a": 1}, {"chain": []}],
        ),
        ({}, {"id": "1", "task": "a.b", "args": [1], "kwargs": {}, "eta": None}),  # protocol 1
        ({"id": "x/../y", "task": "a.b"}, {"args": (), "kwargs": {}}),  # both
    ],
)
def test_what_other_celery_clients_send_is_read(headers: dict[str, Any], body: Any) -> None:
    """Protocol 2 and 1, with ids of any form."""
    check_task(headers, body)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"id": "1", "task": "a.b"}, [[], {}], Reason.BAD_BODY),
        ({"id": "1", "task": "a.b"}, [[], [], {}], Reason.BAD_BODY),
        ({"id": "1", "task": "a.b"}, [[], {}, None], Reason.BAD_BODY),
        ({"id": "\ud83d", "task": "a.b"}, [[], {}, {}], Reason.BAD_HEADERS),
        ({"id": "1" * 256, "task": "a.b"}, [[], {}, {}], Reason.BAD_HEADERS),
        ({"id": "1", "task": "a.b", "timelimit": [float("nan"), 1]}, [[], {}, {}], Reason.BAD_HEADERS),
        ({"id": "1", "task": "a.b", "stamped_headers": True}, [[], {}, {}], Reason.BAD_HEADERS),
        ({"id": "1", "task": "a.b", "stamped_headers": [{}]}, [[], {}, {}], Reason.BAD_HEADERS),
        ({}, {"id": "1", "args": []}, Reason.BAD_HEADERS),
    ],
)
def test_what_celery_would_stumble_over_is_told(headers: dict[str, Any], body: Any, reason: Reason) -> None:
    """Each ends a worker, or takes a place in its pool for ever."""
    with pytest.raises(Unreadable) as found:
        check_task(headers, body)
    assert found.value.reason == reason


def test_a_message_without_end_is_not_even_decoded() -> None:
    """By its size alone."""
    with pytest.raises(Unreadable) as found:
        check_envelope(b"x" * (MAX_BYTES + 1))
    assert found.value.reason == Reason.TOO_LARGE


def test_a_wrapped_message_is_a_right_one_that_has_the_other() -> None:
    """Byte by byte, with the reason; what else has such a header is none."""
    text = wrapped(b"\xff{", Unreadable(Reason.NOT_JSON, "no"), queue="etl")
    check_envelope(text.encode())
    inside = unwrapped(json.loads(text)["headers"])
    assert inside is not None
    assert (inside.message, inside.size_bytes, inside.why.reason) == (b"\xff{", 2, Reason.NOT_JSON)
    assert unwrapped({"celeriac_unreadable": {"reason": "other"}}) is None
    assert unwrapped({}) is None
