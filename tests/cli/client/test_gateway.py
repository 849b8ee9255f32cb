"""The client's side of HTTP: event streams, and what is not a gateway."""

from __future__ import annotations

import pytest

from cli.client.gateway import Gateway, ServerEvent, Unreachable, server_events

STREAM = """\
: keep-alive

id: 1-0
event: state
data: {"state": "running"}

id: 2-0
event: log
data: {"message":
data: "two lines"}

event: state
data: {"never": "ended"}
"""


def test_events_are_read_from_a_stream() -> None:
    """Comments are skipped, lines of data are joined, an event without its empty line is not delivered."""
    expected = [
        ServerEvent("1-0", "state", {"state": "running"}, '{"state": "running"}'),
        ServerEvent("2-0", "log", {"message": "two lines"}, '{"message":\n"two lines"}'),
    ]
    assert expected == list(server_events(iter(STREAM.splitlines())))


def test_nothing_listens() -> None:
    """A refused connection names the URL."""
    with (
        Gateway("http://127.0.0.1:9/") as gateway,
        pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 does not respond: "),
    ):
        gateway.get("/jobs")
