"""What happens to calls whose connections are cut, whose gateway is busy, or that do not find one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.client import Refused, Retries, Unreachable, WrongChecksum
from shared.ledger.states import State
from tests.acme.contracts import CopyNote, TakeNote
from tests.celeriac.client.conftest import client_of
from tests.support.servers.cuts import Cutter, cutter_to
from tests.support.servers.receivers import receiving
from tests.support.servers.services import Server, free_port

pytestmark = pytest.mark.integration

LATER = {"delay_s": 3_600}
ONCE = Retries(for_s=0, connect_for_s=0)


@pytest.fixture
def cutter(service: Server) -> Iterator[Cutter]:
    """Run a proxy before the gateway."""
    with cutter_to(service.port) as made:
        yield made


@pytest.fixture
def behind(form: str, cutter: Cutter) -> Iterator[Any]:
    """Return a client that calls through the proxy."""
    with client_of(form, cutter.url, api_key="hunter2") as made:
        yield made


def test_a_lost_answer_makes_no_second_job(behind: Any, client: Any, cutter: Cutter, form: str, notebook: str) -> None:
    """The gateway has accepted and nobody heard of it: the repetition gets the same job."""
    job, tag = TakeNote(notebook=notebook), f"lost-{form}"
    cutter.cuts_after.extend([0, 0])
    submitted = behind.submit(job, tags=[tag], **LATER)
    assert submitted.replayed
    assert [found.id for found in client.list(tag=tag)] == [submitted.id]
    posted = [request for request in cutter.requests if request.startswith("POST /jobs ")]
    assert ["Authorization: Bearer hunter2\r\n" in request for request in posted] == [True] * 3


def test_without_retries_the_answer_is_lost_but_not_the_job(
    behind: Any, client: Any, cutter: Cutter, form: str, notebook: str
) -> None:
    """With a key of the caller's own, the call itself can be repeated."""
    tag = f"own-{form}"
    cutter.cuts_after.append(0)
    with pytest.raises(Unreachable, match="does not respond"):
        behind.with_retries(ONCE).submit(TakeNote(notebook=notebook), idempotency_key=tag, tags=[tag], **LATER)
    again = behind.submit(TakeNote(notebook=notebook), idempotency_key=tag, tags=[tag], **LATER)
    assert [found.id for found in client.list(tag=tag)] == [again.id]


def test_batches_are_accepted_once(behind: Any, client: Any, cutter: Cutter, form: str, notebook: str) -> None:
    """Each has a key of its own."""
    tag = f"batch-{form}"
    cutter.cuts_after.append(0)
    submitted = behind.submit_many([TakeNote(notebook=notebook)] * 30, tags=[tag], **LATER)
    assert [found.id for found in client.list(tag=tag)] == [job.id for job in submitted][::-1]
    cutter.cuts_after.extend([50_000] * 20)  # a connection ends, too, with each batch that is too large
    with client_of(form, cutter.url, retries=ONCE) as made, pytest.raises(Unreachable) as raised:
        made.submit_many([TakeNote(notebook=notebook)] * 1_000, tags=[f"cut-{form}"], **LATER)
    known = {job.id for job in raised.value.accepted}
    assert 0 < len(known) < len(there := {found.id for found in client.list(tag=f"cut-{form}")}) < 1_000
    assert known < there


def test_a_change_that_nobody_heard_of_is_not_refused_the_second_time(
    form: str, client: Any, cutter: Cutter, notebook: str
) -> None:
    """Cancelled is cancelled, deleted is deleted, and reruns and schedules make one job."""

    def lost(call: str, *arguments: Any, **named: Any) -> Any:
        cutter.cuts_after.append(0)
        with client_of(form, cutter.url) as made:  # a connection of its own, which is cut
            return getattr(made, call)(*arguments, **named)

    job = client.submit(TakeNote(notebook=notebook), **LATER)
    assert lost("cancel", job).state == "cancelled"
    rerun = client.wait(lost("rerun", job))
    assert client.get(job).document["retried_as"] == rerun.id
    schedule = client.create_schedule(TakeNote(notebook=notebook), name="lost", interval_s=3_600, paused=True)
    ran = client.wait(lost("run_schedule", schedule))
    assert [found.id for found in client.list(schedule=schedule.id)] == [ran.id]
    for call, gone in (("delete_schedule", schedule), ("delete", ran)):
        lost(call, gone)
    for read, gone in ((client.get_schedule, schedule), (client.get, ran)):
        with pytest.raises(Refused):
            read(gone)
    before = len(list(client.schedules()))
    with pytest.raises(Unreachable):  # repeated, it might make a second one
        lost("create_schedule", "acme.take_note", {"notebook": notebook}, name="once", interval_s=3_600)
    assert len(list(client.schedules())) == before + 1


def test_events_go_on_behind_a_cut(behind: Any, client: Any, cutter: Cutter, notebook: str) -> None:
    """Without a gap and without a repetition, however often the stream is cut, also in the middle of an event."""
    job = client.submit(TakeNote(notebook=notebook, lasts_s=1))
    cutter.cuts_after.extend([500, 550, 600, 650, 700, 750])
    streamed = list(behind.stream(job))
    assert streamed == list(client.stream(job))
    assert [event.ends_job for event in streamed] == [False] * (len(streamed) - 1) + [True]
    assert len(set(re.findall(r"Last-Event-ID: (\S+)", "".join(cutter.requests)))) >= 3


def test_a_wait_outlives_cuts(behind: Any, client: Any, cutter: Cutter, notebook: str) -> None:
    """Of the first answer and of the stream."""
    job = client.submit(TakeNote(notebook=notebook, lasts_s=0.5))
    cutter.cuts_after.extend([0, 900, 0])
    assert behind.wait(job).state is State.SUCCEEDED


def test_where_events_do_not_come_it_polls(behind: Any, client: Any, cutter: Cutter, notebook: str) -> None:
    """Something on the way answers in the gateway's place, or holds streams back."""
    cutter.alters = lambda part: part.replace(b"text/event-stream", b"text/plain")
    job = client.submit(TakeNote(notebook=notebook, lasts_s=0.5))
    with pytest.raises(Unreachable, match="is not a stream of events"):
        next(behind.stream(job))
    assert behind.wait(job).result.line_count == 1


@pytest.fixture
def large(client: Any, notebook: str) -> Any:
    """Return an ended job with a file of a megabyte."""
    text = "".join(f"{number}\n" for number in range(160_000))
    uploaded = client.upload(text.encode(), name="numbers.txt")
    return client.wait(client.submit(CopyNote(notebook=notebook, note=uploaded.uri)))


def test_a_broken_download_resumes(behind: Any, form: str, cutter: Cutter, large: Any, tmp_path: Path) -> None:
    """In the same call, and in a later one after it was given up; nothing is fetched twice."""
    size = large.result.note.size_bytes
    cutter.cuts_after.extend([300_000, 300_000])
    got = behind.download(large, "note.txt", tmp_path)
    assert got.stat().st_size == size > 1_000_000
    first, second = (int(begin) for begin in re.findall(r"Range: bytes=(\d+)-", "".join(cutter.requests)))
    assert 0 < first < 300_000 < second < 600_000
    cutter.cuts_after.append(300_000)
    with client_of(form, cutter.url, retries=ONCE) as made, pytest.raises(Unreachable):
        made.download(large, "note.txt", tmp_path / "later.txt")
    assert not (tmp_path / "later.txt").exists()
    seen: list[int] = []
    later = behind.download(large, "note.txt", tmp_path / "later.txt", progress=lambda now, _: seen.append(now))
    assert later.read_bytes() == got.read_bytes()
    assert seen[0] > 256 * 1024
    assert not list(tmp_path.glob(".*"))


def test_a_download_ends_where_ranges_are_not_known(
    behind: Any, client: Any, cutter: Cutter, large: Any, tmp_path: Path
) -> None:
    """Something on the way drops `Range`: the file comes from its beginning, and is not put behind itself."""
    cutter.alters_request = lambda part: part.replace(b"\r\nRange: ", b"\r\nDropped: ")
    cutter.cuts_after.extend([300_000, 600_000])
    got = behind.download(large, "note.txt", tmp_path)
    assert "Range: " in "".join(cutter.requests)
    assert got.read_bytes() == client.download(large, "note.txt", tmp_path / "direct").read_bytes()


def test_a_wrong_checksum_is_an_error(behind: Any, cutter: Cutter, large: Any, tmp_path: Path) -> None:
    """And nothing of the file is left."""
    cutter.alters = lambda part: part.replace(b"\n77777\n", b"\n77778\n")
    with pytest.raises(WrongChecksum, match=large.result.note.sha256):
        behind.download(large, "note.txt", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_busy_gateway_is_asked_again(form: str) -> None:
    """After what `Retry-After` says, if that is in time; a call that may have been carried out is not repeated."""
    with receiving() as busy, client_of(form, f"http://127.0.0.1:{busy.port}") as client:
        busy.answers[:] = [(429, {"Retry-After": "1"}), (503, {})]
        begun = time.monotonic()
        assert client.call("POST", "/anything").status == 204
        assert (len(busy.got), time.monotonic() - begun >= 1) == (3, True)
        for answer, times in [((429, {"Retry-After": "3600"}), 1), ((502, {}), 1), ((422, {}), 1)]:
            busy.got.clear()
            busy.answers[:] = [answer, answer]
            with pytest.raises(Refused) as refused:
                client.call("POST", "/anything")
            assert (refused.value.status, len(busy.got)) == (answer[0], times)


def test_where_nothing_listens(form: str) -> None:
    """It is said with the URL, after as long as the retries allow."""
    url = f"http://127.0.0.1:{free_port()}"
    with client_of(form, url, retries=Retries(for_s=30, connect_for_s=1)) as client:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match=f"{url} does not respond: "):
            client.get("x")
        assert 0.1 < time.monotonic() - begun < 30
    not_http = "ftp://127.0.0.1"
    with pytest.raises(Unreachable, match=f"{not_http} is not a URL"), client_of(form, not_http) as client:
        client.get("x")
