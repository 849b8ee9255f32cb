"""Plan and check submissions, then accept them in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import Request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from api.http.idempotency import Key
from api.http.problems import FieldError, Problem
from api.jobs.checks import Checks
from api.jobs.submissions import Submission
from api.outbox import Outbox
from api.settings import GatewaySettings
from api.stopping import within
from shared.access.callers import Caller
from shared.connections.settings import Connections
from shared.contract.catalogue import catalogue
from shared.errors import LedgerUnavailable
from shared.ledger.aclient import AsyncLedger
from shared.ledger.records import Accepted, Entry
from shared.ledger.records import Submission as LedgerSubmission
from shared.workflows.definition import WorkflowContract
from shared.workflows.planning import Planner, Prepared, prepare

_COMPOSING_S = 10.0  # a workflow that `Checks` accepts takes about two seconds of CPU time; few nestings take more
_WORKFLOWS_AT_ONCE = 4  # threads that plan workflows; further requests wait


class Dispatch:
    """Accepts jobs. One per process."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        ledger: AsyncLedger,
        planner: Planner,
        connections: Connections,
        outbox: Outbox | None,
    ) -> None:
        """Take the parts; `outbox` is None where the ledger's Redis is the broker."""
        self._settings = settings
        self._ledger = ledger
        self._planner = planner
        self._connections = connections
        self._outbox = outbox
        self._planning = asyncio.Semaphore(_WORKFLOWS_AT_ONCE)

    def warm_up(self) -> None:
        """Create the message template of every kind; one takes milliseconds."""
        for contract in catalogue().values():
            if not issubclass(contract, WorkflowContract):
                self._planner.warm_up(contract)

    async def prepare(self, submissions: Sequence[Submission], caller: Caller, *, at: str = "") -> Sequence[Prepared]:
        """Plan the jobs and check them beyond the schema. Raises `Problem` (422, 403) with each invalid field.

        `at` is the pointer to the list of submissions in the body; empty where the body is the submission.
        """
        if not any(isinstance(submission.params, WorkflowContract) for submission in submissions):
            return self._prepared(submissions, caller, at)
        async with self._planning:  # a workflow may have a thousand elements
            return await asyncio.to_thread(self._prepared, submissions, caller, at)

    def _prepared(self, submissions: Sequence[Submission], caller: Caller, at: str) -> Sequence[Prepared]:
        checks, passed = Checks(self._connections, self._settings, caller.restrictions), []
        for index, submission in enumerate(submissions):
            prepared = prepare(submission.params, submission.options)
            if checks.passes(prepared, f"{at}/{index}" if at else ""):
                passed.append(prepared)  # if one is invalid, none is accepted, so the others need not be kept
        checks.refuse()
        return passed

    async def accept(
        self, prepared: Sequence[Prepared], key: Key | None, **lineage: Any
    ) -> tuple[Accepted, Sequence[Entry]]:
        """Accept the jobs that `prepare` returned, all or none. `lineage` is their origin: see `Planner.entry`.

        Raises `LedgerUnavailable` or, on a reused key, `Problem` (422; 410 if what it submitted was deleted).
        """
        entries = [
            self._planner.entry(job, **lineage) if job.node is None else await self._workflow(job, lineage)
            for job in prepared
        ]
        accepted = await self._ledger.accept(
            LedgerSubmission(
                jobs=entries,
                idempotency_key=key.key if key else None,
                fingerprint=key.fingerprint if key else "",
                idempotency_s=self._settings.idempotency_s,
            )
        )
        if accepted.outcome == "conflict":
            raise Problem(
                422,
                "idempotency_conflict",
                "This Idempotency-Key was used for another request. Use a new key for a new request.",
                errors=[FieldError(pointer="Idempotency-Key", message="The key was used for another request.")],
            )
        if accepted.outcome == "gone":
            what = f"job {accepted.ids[0]}" if len(accepted.ids) == 1 else f"{len(accepted.ids)} jobs"
            raise Problem(
                410,
                "expired_job",
                f"This Idempotency-Key submitted {what}, deleted since. To submit again, use a new key.",
            )
        if accepted.outcome == "taken" and len(entries) > 1:
            index = next(index for index, entry in enumerate(entries) if entry.id == accepted.refused)
            raise _taken(index, accepted.ids[0], is_in_batch=accepted.ids[0] in {entry.id for entry in entries})
        if self._outbox is not None and accepted.outcome == "accepted":
            self._outbox.put(entries)
        return accepted, entries

    async def _workflow(self, prepared: Prepared, lineage: Mapping[str, Any]) -> Entry:
        async with self._planning:
            # Celery writes a chord's size to Redis with its own timeouts and retries: check first, with ours.
            await self._ledger.ping()
            try:
                return await within(_COMPOSING_S, partial(self._planner.entry, prepared, **lineage))
            except TimeoutError as slow:
                text = (
                    f"It could not be planned within {_COMPOSING_S:g} s. Nest it less, or split it into several jobs."
                )
                raise Problem(
                    422, "workflow_too_large", text, errors=[FieldError(pointer="/params", message=text)]
                ) from slow
            except (OperationalError, RedisError, OSError) as failure:
                raise LedgerUnavailable("a workflow cannot be planned") from failure


def _taken(index: int, holder: str, *, is_in_batch: bool) -> Problem:
    other = "an earlier one of the batch is the same" if is_in_batch else f"job {holder} has not ended"
    text = f"Its kind is unique, and {other}. Leave it out; none of the batch was accepted."
    return Problem(409, "not_unique", text, errors=[FieldError(pointer=f"/jobs/{index}", message=text)])


def dispatch_of(request: Request) -> Dispatch:
    """Return the process's `Dispatch`. As a FastAPI dependency it would cost a tenth of accepting a job."""
    dispatch: Dispatch = request.app.state.dispatch
    return dispatch
