"""Accepting jobs: one round trip, and on other brokers an outbox."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

from api.http.problems import Problem
from api.jobs.dispatch import Dispatch
from api.jobs.submissions import SUBMISSION
from api.outbox import publishing
from api.settings import GatewaySettings
from shared.access.callers import ANYONE
from shared.broker.messages import Composer
from shared.ledger.aclient import AsyncLedger
from shared.ledger.keys import key
from shared.ledger.records import Record
from shared.workflows.planning import Planner
from tests.support.servers.services import BOUND_S, valkey_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from api.jobs.submissions import Submission
    from shared.ledger.records import Accepted, Entry
    from tests.support.servers.services import Server

EXTRACTION = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/a.csv"}}}


def with_dispatch(settings: GatewaySettings, body: Callable[[Dispatch, AsyncLedger], Awaitable[None]]) -> None:
    """Run `body` with the parts that the gateway's lifespan makes."""

    async def main() -> None:
        async with redis.asyncio.Redis.from_url(settings.ledger_url, decode_responses=True) as client:
            ledger = AsyncLedger(client)
            async with publishing(settings, ledger) as outbox:
                planner = Planner(settings, Composer(settings))
                await body(Dispatch(settings, ledger=ledger, planner=planner, connections={}, outbox=outbox), ledger)

    asyncio.run(main())


def submission(**options: Any) -> Any:
    """Return a checked submission."""
    return SUBMISSION.check(json.dumps(EXTRACTION | {"options": options}).encode())


async def accept(dispatch: Dispatch, *submissions: Submission) -> tuple[Accepted, Sequence[Entry]]:
    """Check the jobs and accept them, as a route does."""
    return await dispatch.accept(await dispatch.prepare(submissions, ANYONE), None)


def test_single_job_costs_one_round_trip(tmp_path: Path) -> None:
    """Submissions that come together share one call of the script; alone, each is one."""

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        await accept(dispatch, submission())  # the script is known from here on
        before = await calls(ledger)
        for _ in range(3):
            await accept(dispatch, submission())
        assert await calls(ledger) - before == 3
        before = await calls(ledger)
        await asyncio.gather(*(accept(dispatch, submission()) for _ in range(50)))
        assert await calls(ledger) - before <= 2
        assert await ledger.client.zcard(key("jobs")) == 54

    async def calls(ledger: AsyncLedger) -> int:
        statistics = await ledger.client.info("commandstats")
        return int(statistics["cmdstat_fcall"]["calls"])

    with valkey_server(tmp_path / "own") as own:  # on the shared one, a gateway may call meanwhile
        with_dispatch(GatewaySettings(broker_url=own.redis_url), body)


def test_accepting_does_not_block_the_loop(empty_valkey: Server) -> None:
    """A large workflow is laid out in a thread: others are served meanwhile."""
    settings = GatewaySettings(broker_url=empty_valkey.redis_url)
    source = EXTRACTION["params"]["source"]  # type: ignore[index]  # a JSON object
    large = SUBMISSION.check(
        json.dumps({"kind": "etl.run_partitioned", "params": {"sources": [source] * 200}}).encode()
    )

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        del ledger
        await accept(dispatch, submission())
        accepting = asyncio.create_task(accept(dispatch, large))
        turns = 0
        while not accepting.done():
            await asyncio.sleep(0)
            turns += 1
        assert len((await accepting)[1][0].steps) == 201
        assert turns > 20

    with_dispatch(settings, body)


def test_steps_know_their_neighbours_and_wait_with_their_job(empty_valkey: Server) -> None:
    """A delayed workflow's first steps have its start time; each step names those before and after it."""
    settings = GatewaySettings(broker_url=empty_valkey.redis_url)
    sources = [EXTRACTION["params"]["source"]] * 2  # type: ignore[index]  # a JSON object
    text = json.dumps(
        {"kind": "etl.run_partitioned", "params": {"sources": sources}, "options": {"delay_s": 60, "priority": 9}}
    )

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        del ledger
        _, (job,) = await accept(dispatch, SUBMISSION.check(text.encode()))
        first, second, combine = job.steps
        assert (first.after, first.before) == ((), (combine.id,))
        assert (combine.after, combine.before) == ((first.id, second.id), ())
        assert first.due_at == second.due_at == job.due_at
        assert (combine.due_at, combine.message) == (None, None)
        assert {step.priority for step in job.steps} == {9}

    with_dispatch(settings, body)


@pytest.mark.parametrize(
    ("limit_s", "expected"), [(None, [3600, 3540]), (3600, [3600, 3540]), (100, [100, 90]), (1000, [1000, 940])]
)
def test_time_limit_leaves_time_to_clean_up(limit_s: float | None, expected: list[float], empty_valkey: Server) -> None:
    """The soft limit keeps the kind's distance to the hard one, or a tenth where the limit is short."""
    settings = GatewaySettings(broker_url=empty_valkey.redis_url)

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        del ledger
        _, (job,) = await accept(dispatch, submission(time_limit_s=limit_s))
        assert json.loads(job.message or "")["headers"]["timelimit"] == expected

    with_dispatch(settings, body)


def elsewhere(valkey: Server) -> GatewaySettings:
    """Return settings with the broker in another database than the ledger: kombu publishes."""
    ledger_url = valkey.redis_url.removesuffix("/0") + "/1"
    return GatewaySettings(broker_url=valkey.redis_url, ledger_url=ledger_url)


def test_outbox_publishes_on_a_broker_elsewhere(empty_valkey: Server) -> None:
    """The job is accepted first; then kombu publishes its message and the ledger notes it."""

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        accepted, (job,) = await accept(dispatch, submission(priority=9))
        await accept(dispatch, submission(delay_s=60))  # not before its time
        async with asyncio.timeout(BOUND_S):
            while await ledger.client.zcard(key("outbox")):  # noqa: ASYNC110 - Redis says nothing of a ZREM
                await asyncio.sleep(0.01)
        record = await ledger.read(accepted.ids[0])
        assert isinstance(record, Record)
        assert (record.state, record.publishes) == ("queued", 1)
        with redis.Redis(port=empty_valkey.port, decode_responses=True) as broker:
            (message,) = broker.lrange("etl", 0, -1)
            assert json.loads(message)["headers"] == json.loads(job.message or "")["headers"]
            assert broker.keys("etl*") == ["etl"]

    with_dispatch(elsewhere(empty_valkey), body)


def test_job_is_accepted_while_the_broker_elsewhere_is_down(empty_valkey: Server) -> None:
    """Nothing waits for the broker: the message stays in the ledger's outbox for the keeper."""
    settings = GatewaySettings(broker_url="redis://127.0.0.1:1/0", ledger_url=empty_valkey.redis_url)

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        async with asyncio.timeout(10):
            accepted, _ = await accept(dispatch, submission())
        assert await ledger.client.zscore(key("outbox"), accepted.ids[0]) is not None
        assert await ledger.client.lrange("etl\x06\x165", 0, -1) == []

    with_dispatch(settings, body)


def chained_groups(groups: int) -> Any:
    """Return a checked chain of groups of two steps."""
    step = {"kind": "maintenance.deliver_callback", "params": {"job_id": "0192f0c1-2a4b-7c3d-8e5f-0123456789ab"}}
    group = {"kind": "workflow.group", "params": {"steps": [step] * 2}}
    return SUBMISSION.check(json.dumps({"kind": "workflow.chain", "params": {"steps": [group] * groups}}).encode())


def test_groups_of_which_a_worker_could_not_read_the_messages_are_refused(
    empty_valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """450 groups one after another are chords within one another; 100 are accepted."""
    monkeypatch.setattr("api.jobs.dispatch._COMPOSING_S", BOUND_S)  # what is accepted may take long on a busy machine

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        del ledger
        with pytest.raises(Problem) as refused:
            await dispatch.prepare([chained_groups(450)], ANYONE)
        assert (refused.value.status, refused.value.code) == (422, "workflow_too_large")
        assert refused.value.errors[0].pointer == "/params"
        accepted, _ = await accept(dispatch, chained_groups(100))
        assert accepted.outcome == "accepted"

    with_dispatch(GatewaySettings(broker_url=empty_valkey.redis_url), body)


# Raised within a callback of Hypothesis on the garbage collector, it is swallowed there, reported, and raised again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_takes_too_long_to_lay_out_is_stopped(empty_valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not blamed on the ledger, and its thread ends with the answer."""
    monkeypatch.setattr("api.jobs.dispatch._COMPOSING_S", 0.05)
    ended = threading.Event()

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        del ledger
        planner = dispatch._planner
        monkeypatch.setattr(dispatch, "_planner", watched(planner))
        with pytest.raises(Problem) as refused:
            await accept(dispatch, chained_groups(120))
        assert (refused.value.status, refused.value.code) == (422, "workflow_too_large")
        assert await asyncio.to_thread(ended.wait, BOUND_S)

    def watched(planner: Planner) -> Any:
        class Watched:
            def entry(self, *args: Any, **more: Any) -> Any:
                try:
                    return planner.entry(*args, **more)
                except Exception:
                    raise
                except BaseException:  # stopped from outside
                    ended.set()
                    raise

        return Watched()

    with_dispatch(GatewaySettings(broker_url=empty_valkey.redis_url), body)


def test_a_request_of_large_workflows_is_refused_before_they_are_laid_out(empty_valkey: Server) -> None:
    """Steps in parallel carry all that follows: 60 kB of request would be 70 MB of messages."""
    step = {"kind": "maintenance.deliver_callback", "params": {"job_id": "0192f0c1-2a4b-7c3d-8e5f-0123456789ab"}}
    group = {"kind": "workflow.group", "params": {"steps": [step] * 300}}
    wide = SUBMISSION.check(json.dumps({"kind": "workflow.chain", "params": {"steps": [group] * 2}}).encode())
    many = [SUBMISSION.check(json.dumps(group).encode())] * 17
    steps = [group, group, {"kind": "acme.nothing"}]
    unknown = SUBMISSION.check(json.dumps({"kind": "workflow.chain", "params": {"steps": steps}}).encode())

    async def body(dispatch: Dispatch, ledger: AsyncLedger) -> None:
        del ledger
        with pytest.raises(Problem) as too_large:
            await dispatch.prepare([wide], ANYONE)
        assert (too_large.value.status, too_large.value.errors[0].pointer) == (422, "/params")
        assert "16 MiB" in too_large.value.errors[0].message
        with pytest.raises(Problem) as too_many:
            await dispatch.prepare(many, ANYONE, at="/jobs")
        assert [error.pointer for error in too_many.value.errors] == ["/jobs/16/params"]
        await dispatch.prepare(many[:16], ANYONE, at="/jobs")
        with pytest.raises(Problem) as wrong:
            await dispatch.prepare([unknown], ANYONE)
        assert [error.pointer for error in wrong.value.errors] == ["/params/steps/2/kind"]  # its size was not measured

    with_dispatch(GatewaySettings(broker_url=empty_valkey.redis_url), body)
