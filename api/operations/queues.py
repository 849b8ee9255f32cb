"""Queues: their depth, their waiting reasons, pause and resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from api.deps import Ledger
from api.http.models import at_or_none
from api.http.problems import Problem, problems
from api.operations.schemas import Queue, QueueList
from shared.contract.definition import known_queues
from shared.contract.spelling import did_you_mean
from shared.ledger.operations import Operations, QueueState

router = APIRouter(tags=["queues"])


async def _operations(ledger: Ledger) -> Operations:
    return Operations(ledger)


async def _known(queue: Annotated[str, Path(description="The queue's name.", examples=["etl"])]) -> str:
    """Return the queue. Raises `Problem` (404)."""
    if queue not in known_queues():
        raise Problem(404, "unknown_queue", f"There is no queue {queue[:100]!r}. {did_you_mean(queue, known_queues())}")
    return queue


Operator = Annotated[Operations, Depends(_operations)]
KnownQueue = Annotated[str, Depends(_known)]


@router.get("/queues", summary="List the queues", responses=problems(503))
async def list_queues(operations: Operator) -> QueueList:
    """Return every queue with its depth, its oldest waiting job, its consumers, and whether it is paused."""
    return QueueList(queues=[_shown(state) for state in await operations.queues(sorted(known_queues()))])


@router.post("/queues/{queue}/pause", summary="Pause a queue", responses=problems(404, 503, 507))
async def pause_queue(queue: KnownQueue, operations: Operator) -> Queue:
    """Start no job of the queue until it is resumed. Running jobs continue, and new ones are accepted."""
    await operations.pause(queue)
    return await _one(queue, operations)


@router.post("/queues/{queue}/resume", summary="Resume a queue", responses=problems(404, 503, 507))
async def resume_queue(queue: KnownQueue, operations: Operator) -> Queue:
    """Resume the queue; held jobs are released in order."""
    await operations.resume(queue)
    return await _one(queue, operations)


async def _one(queue: str, operations: Operations) -> Queue:
    (state,) = await operations.queues([queue])
    return _shown(state)


def _shown(state: QueueState) -> Queue:
    waiting_reason = None
    if state.depth:
        waiting_reason = "queue_paused" if state.paused_at else None if state.consumers else "no_consumer"
    return Queue(
        name=state.name,
        is_paused=state.paused_at is not None,
        paused_at=at_or_none(state.paused_at),
        depth=state.depth,
        held=state.held,
        concurrency_limited=state.limited,
        rate_limited=state.rated,
        running=state.running,
        consumers=state.consumers,
        oldest_waiting=state.oldest_id,
        oldest_waiting_s=(state.now - state.oldest_at) / 1000 if state.oldest_id else None,
        waiting_reason=waiting_reason,
    )
