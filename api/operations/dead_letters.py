"""Dead letters: messages that no worker could read; list, read, requeue, delete."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

from celery import Celery
from fastapi import APIRouter, Depends, Path, Query

from api.deps import Ledger, Settings
from api.http.models import at
from api.http.page_tokens import Pages, page_token
from api.http.problems import Problem, problems
from api.operations import schemas
from shared.broker.celery import make_celery
from shared.broker.messages import put_back
from shared.ledger.dead_letters import DeadLetter, DeadLetters
from shared.ledger.server import SOCKET_TIMEOUT_S
from shared.texts import redact

_PATH = "dead-letters"

router = APIRouter(tags=["dead letters"])


async def _letters(ledger: Ledger) -> DeadLetters:
    return DeadLetters(ledger)


Letters = Annotated[DeadLetters, Depends(_letters)]
LetterId = Annotated[str, Path(description="The dead letter's id.", json_schema_extra={"format": "uuid"})]


async def _found(letter_id: LetterId, letters: Letters) -> DeadLetter:
    """Return the letter. Raises `Problem` (404)."""
    try:
        found = await letters.get(str(UUID(letter_id)))
    except ValueError:
        found = None
    if found is None:
        raise Problem(
            404, "unknown_dead_letter", f"There is no dead letter {letter_id[:100]}. GET /dead-letters lists them."
        )
    return found


Found = Annotated[DeadLetter, Depends(_found)]


@router.get("/dead-letters", summary="List dead letters", responses=problems(422, 503))
async def list_dead_letters(letters: Letters, wanted: Annotated[Pages, Query()]) -> schemas.DeadLetterPage:
    """Return the messages that no worker could read, newest first. The last 1,000 are kept for the retention."""
    page, has_more = await letters.list(limit=wanted.page_size, before=wanted.below(_PATH))
    return schemas.DeadLetterPage(
        dead_letters=[schemas.DeadLetter(**_fields(letter)) for letter in page],
        next_page_token=page_token(page[-1].id, _PATH) if has_more else None,
    )


@router.get(
    "/dead-letters/{letter_id}",  # noqa: FAST003 - Found takes it
    summary="Read a dead letter",
    responses=problems(404, 503),
)
async def get_dead_letter(found: Found) -> schemas.DeadLetterWithMessage:
    """Return the dead letter with its message."""
    return schemas.DeadLetterWithMessage(**_fields(found), message=found.message.decode(errors="replace"))


@router.post(
    "/dead-letters/{letter_id}/requeue",  # noqa: FAST003 - Found takes it
    status_code=204,
    summary="Requeue a dead letter",
    responses=problems(404, 409, 503),
)
async def requeue_dead_letter(found: Found, letters: Letters, settings: Settings) -> None:
    """Put the message back at the end of its queue, for example after an upgrade of the workers.

    If it still cannot be read, it becomes a new dead letter.
    """
    if found.is_cut:
        raise Problem(
            409,
            "dead_letter_cut",
            f"Only {len(found.message)} of its {found.size_bytes} bytes were kept, so it cannot be requeued. "
            "Submit the job again.",
        )
    app = make_celery(settings)
    if found.queue not in app.amqp.queues:
        raise Problem(
            409, "unknown_queue", f"Its queue {found.queue[:100]!r} is unknown. Add the queue to CELERIAC_QUEUES."
        )
    try:
        await asyncio.to_thread(_put_back, app, found)
    except Exception as failure:
        raise Problem(
            503,
            "broker_unavailable",
            f"The broker did not take the message, which is still a dead letter: {redact(repr(failure))}. Try again.",
        ) from failure
    await letters.remove(found.id)


@router.delete(
    "/dead-letters/{letter_id}",  # noqa: FAST003 - Found takes it
    status_code=204,
    summary="Delete a dead letter",
    responses=problems(404, 503),
)
async def delete_dead_letter(found: Found, letters: Letters) -> None:
    """Delete the dead letter and its message."""
    await letters.remove(found.id)


def _put_back(app: Celery, letter: DeadLetter) -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=int(SOCKET_TIMEOUT_S))
        put_back(connection, app.amqp.queues[letter.queue], letter.message)


def _fields(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "taken_off_at": at(letter.at),
        "queue": letter.queue,
        "reason": letter.reason,
        "detail": letter.detail,
        "worker": letter.worker,
        "size_bytes": letter.size_bytes,
        "is_cut": letter.is_cut,
    }
