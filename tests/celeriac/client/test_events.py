"""Event streams, part by part."""

from __future__ import annotations

import pytest

from celeriac.client import Event
from celeriac.client.plans.following import EventParser

STREAM = """\
: keep-alive

id: 1-0
event: state
data: {"state": "running"}

id: 2-0
event: log
data: {"message":
data: "two lines — ä"}

event: state
data: {"never": "ended"}
"""


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_events_are_read_from_a_stream(size: int, end: str) -> None:
    """Comments are skipped, lines of data are joined, an event without its empty line is not delivered.

    Wherever the parts of the stream begin: in a line, in a letter.
    """
    sent = STREAM.replace("\n", end).encode()
    parser = EventParser()
    read = [event for begin in range(0, len(sent), size) for event in parser.events(sent[begin : begin + size])]
    assert read == [
        Event("1-0", "state", {"state": "running"}, '{"state": "running"}'),
        Event("2-0", "log", {"message": "two lines — ä"}, '{"message":\n"two lines — ä"}'),
    ]
