"""What a submission is told when the ledger is silent, cut off, restarted or full, on a Valkey of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import redis
import redis.asyncio

from shared.errors import LedgerFull, LedgerUnavailable, OutcomeUnknown
from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.calls import Asked, asked
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.records import Accepted, Claim, Entry, Record, Submission
from tests.support.ledgers import RESULT, entry, record
from tests.support.servers.cpu_waits import Stopwatch
from tests.support.servers.outages import frozen
from tests.support.servers.services import Server, valkey_server

T = TypeVar("T")
BOUND_S = 0.6
PROGRESS = '{"current": 1, "total": 2, "unit": "rows", "message": ""}'
LINE = '{"at": "2026-01-31T12:00:00+00:00", "level": "info", "message": "half of it is done", "fields": {}}'


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    with valkey_server(tmp_path / "own") as server:
        yield server


@asynccontextmanager
async def ledger_at(port: int) -> AsyncIterator[AsyncLedger]:
    async with redis.asyncio.Redis(port=port, decode_responses=True) as client:
        yield AsyncLedger(client, timeout_s=BOUND_S)


def with_ledger(port: int, use: Callable[[AsyncLedger], Awaitable[T]]) -> T:
    async def run() -> T:
        async with ledger_at(port) as ledger:
            await ledger.accept(Submission([entry()]))  # connected, and the script is known
            return await use(ledger)

    return asyncio.run(run())


async def outcome(ledger: AsyncLedger, submission: Submission) -> tuple[Accepted | Exception, float]:
    """Return what a submission is told, and after how many seconds of its own."""
    watch = Stopwatch()
    try:
        return await ledger.accept(submission), watch.own_s
    except (LedgerUnavailable, OutcomeUnknown, LedgerFull) as failure:
        return failure, watch.own_s


def test_each_waits_its_own_time_for_a_silent_ledger(own: Server) -> None:
    """Batches do not wait for each other. What was reported as failed is not accepted, not even later."""
    submissions = [Submission([entry() for _ in range(300)]) for _ in range(6)]

    async def submit(ledger: AsyncLedger) -> None:
        with frozen(own.process.pid):
            told = await asyncio.gather(*(outcome(ledger, submission) for submission in submissions))
        assert max(seconds for _, seconds in told) < 3 * BOUND_S
        kinds = [type(what) for what, _ in told]
        assert kinds.count(OutcomeUnknown) == 1, kinds  # the one that was sent
        assert kinds.count(LedgerUnavailable) == 5, kinds
        await ledger.accept(Submission([entry()]))  # what lay in the socket was read before this
        assert await ledger.client.zcard(ledger.keys("jobs")) == 2

    with_ledger(own.port, submit)


def test_a_silent_ledger_does_not_do_later_what_was_given_up(own: Server) -> None:
    """The call stays in the server's socket. When the server continues, the deadline of the call has passed."""
    job = entry()

    async def submit(ledger: AsyncLedger) -> None:
        with frozen(own.process.pid):
            what, _ = await outcome(ledger, Submission([job]))
        assert isinstance(what, OutcomeUnknown)
        async with asyncio.timeout(60):
            while await handled(ledger) < 2:  # noqa: ASYNC110 - the server does not tell when it has read a socket
                await asyncio.sleep(0.01)
        assert not await ledger.client.exists(ledger.keys("job", job.id))

    async def handled(ledger: AsyncLedger) -> int:
        """Return how many calls of the script the server has handled: the first one of `with_ledger`, and this."""
        statistics = await ledger.client.info("commandstats")
        return int(statistics["cmdstat_fcall"]["calls"])

    with_ledger(own.port, submit)


class Relay:
    """A way to the server that can lose the replies to what is sent from now on, on the connections that are open."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._open: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.breaks = False  # a connection whose reply is lost is closed, too

    def lose_replies(self) -> None:
        for loses in self._open:
            loses.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._server_port)
        loses = asyncio.Event()
        self._open.append(loses)
        for task in (self._copy(reader, onward, None), self._copy(onward_reader, writer, loses)):
            self._tasks.add(asyncio.create_task(task))

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loses: asyncio.Event | None
    ) -> None:
        while data := await reader.read(65_536):
            if loses is None or not loses.is_set():
                writer.write(data)
            elif self.breaks:
                break
        writer.close()


def with_relay(own: Server, use: Callable[[AsyncLedger, Relay], Awaitable[T]]) -> T:
    async def run() -> T:
        relay = Relay(own.port)
        async with relay.listening() as port, ledger_at(port) as ledger:
            await ledger.accept(Submission([entry()]))
            return await use(ledger, relay)

    return asyncio.run(run())


@pytest.mark.parametrize("key", [None, "k"])
def test_what_was_accepted_without_a_reply_is_looked_up(own: Server, key: str | None) -> None:
    """The reply is lost, the jobs are there: so it is accepted."""
    jobs = [entry() for _ in range(3)]

    async def submit(ledger: AsyncLedger, relay: Relay) -> None:
        relay.lose_replies()
        what, seconds = await outcome(ledger, Submission(jobs, idempotency_key=key))
        assert isinstance(what, Accepted), what
        assert (what.outcome, what.ids) == ("accepted", tuple(job.id for job in jobs))
        assert what.created_at_ms == int(await ledger.client.hget(ledger.keys("job", jobs[0].id), "created_at") or 0)
        assert seconds < 2 * BOUND_S

    with_relay(own, submit)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_connection_that_breaks_before_the_reply_costs_no_second_job(own: Server, key: str | None) -> None:
    """The call is made again on a fresh connection, and finds what the first one wrote."""
    job = entry()

    async def submit(ledger: AsyncLedger, relay: Relay) -> None:
        relay.breaks = True
        relay.lose_replies()
        what, seconds = await outcome(ledger, Submission([job], idempotency_key=key))
        assert isinstance(what, Accepted), what
        assert (what.outcome, what.ids) == ("accepted", (job.id,))
        assert seconds < BOUND_S
        assert await ledger.client.llen("etl\x06\x165") == 2  # with the one that was there before

    with_relay(own, submit)


def test_a_cancel_without_a_reply_is_unknown_and_a_reading_is_not(own: Server) -> None:
    """Only a call that writes may have been carried out."""

    async def cancel(ledger: AsyncLedger) -> None:
        with frozen(own.process.pid):
            with pytest.raises(OutcomeUnknown):
                await ledger.cancel(entry().id, reason="r")
            with pytest.raises(LedgerUnavailable):
                await ledger.read(entry().id)

    with_ledger(own.port, cancel)


def test_a_change_that_was_given_up_is_not_done_later(own: Server) -> None:
    """The call reaches the frozen server too late, so what the client reads afterwards does not change."""

    async def cancel(ledger: AsyncLedger) -> None:
        job = entry()
        await ledger.accept(Submission([job]))
        with frozen(own.process.pid), pytest.raises(OutcomeUnknown):
            await ledger.cancel(job.id, reason="r")
        for _ in range(3):
            await ledger.client.ping()
            found = await ledger.read(job.id)
            assert isinstance(found, Record)
            assert found.state == "queued"
        assert await ledger.cancel(job.id, reason="r") == ("cancelled", "")

    with_ledger(own.port, cancel)


def test_a_server_whose_clock_was_set_changes(own: Server) -> None:
    """The first reply has the server's time; the call is repeated with it."""

    async def pause(ledger: AsyncLedger) -> None:
        ledger.headroom.clock.heard(int(time.time() * 1000) - 3_600_000)
        assert await ledger.call("pause", {"queue": "etl"})

    with_ledger(own.port, pause)


def test_a_failure_does_not_say_that_nothing_was_changed_while_another_call_has_no_reply(own: Server) -> None:
    """Two calls of one request at the same time: one was sent, the other finds no connection."""

    async def cancel_two(ledger: AsyncLedger) -> None:
        request = Asked(asyncio.get_running_loop().time())
        asked.set(request)
        ledger.client.connection_pool.max_connections = 1
        with frozen(own.process.pid):
            sent = asyncio.create_task(ledger.cancel(entry().id, reason="r"))
            while not request.may_have_changed:  # noqa: ASYNC110 - nothing tells when it is sent
                await asyncio.sleep(0)
            with pytest.raises(OutcomeUnknown):
                await ledger.cancel(entry().id, reason="r")
            with pytest.raises(OutcomeUnknown):
                await sent

    with_ledger(own.port, cancel_two)


def test_a_failure_does_not_say_that_nothing_was_changed_after_a_change(own: Server) -> None:
    """A request makes several calls: the first one was carried out, and the ledger falls silent before the second."""

    async def pause_and_read(ledger: AsyncLedger) -> None:
        asked.set(Asked(asyncio.get_running_loop().time()))
        await ledger.call("pause", {"queue": "etl"})
        with frozen(own.process.pid), pytest.raises(OutcomeUnknown):
            await ledger.call("queues", {"queues": ["etl"]})

    with_ledger(own.port, pause_and_read)


def test_a_server_whose_clock_was_set_accepts(own: Server) -> None:
    """The server's clock is an hour ahead of what was assumed; the first reply corrects it, the second is in time."""

    async def submit(ledger: AsyncLedger) -> None:
        ledger.headroom.clock.heard(int(time.time() * 1000) - 3_600_000)
        what, _ = await outcome(ledger, Submission([entry()]))
        assert isinstance(what, Accepted)

    with_ledger(own.port, submit)


def test_a_full_ledger_says_so_before_it_refuses_to_write(own: Server) -> None:
    """Submissions are refused where the reserve begins, cancels continue; a refusal by the server is told as such."""
    accepted, refused = entry(), entry()

    async def fill(ledger: AsyncLedger) -> None:
        await ledger.accept(Submission([accepted], idempotency_key="k"))
        used = int((await ledger.client.info("memory"))["used_memory"])
        await ledger.client.config_set("maxmemory", int(used * 1.05))
        await ledger.headroom.look()
        with pytest.raises(LedgerFull):
            await ledger.accept(Submission([refused]))
        again = await ledger.accept(Submission([refused], idempotency_key="k"))
        assert (again.outcome, again.ids) == ("replayed", (accepted.id,))
        assert await ledger.cancel(accepted.id, reason="r") == ("cancelled", "")
        await ledger.client.config_set("maxmemory", "1mb")
        with pytest.raises(LedgerFull):
            await ledger.call("pause", {"queue": "etl"})
        await ledger.client.config_set("maxmemory", "0")
        await ledger.headroom.look()
        assert (await ledger.accept(Submission([refused]))).outcome == "accepted"

    with_ledger(own.port, fill)


def group(count: int) -> Entry:
    """Return a workflow of parallel steps."""
    job_id = uuid7()
    steps = [entry(job_id=job_id, step=f"part_{n}", after=(), before=()) for n in range(count)]
    return entry(id=job_id, kind="workflow.group", message=None, steps=tuple(steps))


@pytest.mark.parametrize("job", [entry, partial(group, 40)], ids=["jobs", "workflows"])
def test_what_was_accepted_has_room_to_end(own: Server, job: Callable[[], Entry]) -> None:
    """Submissions are refused before the memory is used up that the attempts, events and results need until then."""

    async def fill(ledger: AsyncLedger) -> list[Entry]:
        used = int((await ledger.client.info("memory"))["used_memory"])
        await ledger.client.config_set("maxmemory", used + (3 << 20))
        ledger.headroom.reserve_ratio = 0.05  # so that it is not this reserve that suffices
        accepted: list[Entry] = []
        count = -1
        while len(accepted) > count:
            count = len(accepted)
            await ledger.headroom.look()
            while isinstance((await outcome(ledger, Submission([made := job()])))[0], Accepted):
                accepted.append(made)
        return accepted

    jobs = with_ledger(own.port, fill)
    with redis.Redis(port=own.port, decode_responses=True) as client:
        ledger = Ledger(client)
        for each in [step for job in jobs for step in job.steps or [job]]:
            right = ledger.claim(each.id, owner="w", worker="w@host", lease_s=60, message=each.message or "")
            assert isinstance(right, Claim)
            ledger.progress(each.id, token=right.token, progress=PROGRESS, logs=[LINE] * 2)
            ledger.succeed(each.id, token=right.token, result=RESULT)
        assert {record(ledger, job.id).state for job in jobs} == {"succeeded"}
        assert client.exists(key("open_steps")) == 0


def test_what_was_accepted_since_the_last_look_counts(own: Server) -> None:
    """A burst of large batches does not exhaust the memory between two looks."""

    async def fill(ledger: AsyncLedger) -> None:
        used = int((await ledger.client.info("memory"))["used_memory"])
        await ledger.client.config_set("maxmemory", used + (20 << 20))
        await ledger.headroom.look()
        while not isinstance((await outcome(ledger, Submission([entry() for _ in range(200)])))[0], LedgerFull):
            pass
        info = await ledger.client.info("memory")
        assert int(info["used_memory"]) < int(info["maxmemory"])
        assert int(await ledger.client.zcard(ledger.keys("jobs"))) > 500

    with_ledger(own.port, fill)
