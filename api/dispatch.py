"""From a checked submission to the ledger: which queue, which limits, which messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import OperationalError
from pydantic_core import to_json
from redis.exceptions import RedisError

from api.errors import FieldError, Problem
from api.outbox import Outbox
from api.pointers import nearest, pointer
from api.schemas import Submission, SubmissionOptions
from api.settings import GatewaySettings
from shared.catalogue import catalogue
from shared.connections import Connections, check_connections
from shared.contract import AnyContract, known_queues
from shared.errors import LedgerUnavailable
from shared.ids import uuid7
from shared.ledger import AsyncLedger
from shared.messages import Composer, MessageOptions
from shared.records import Accepted, Entry
from shared.records import Submission as LedgerSubmission
from shared.workflows import PlannedStep, WorkflowContract, lay_out

_LAYING_OUT_S = 30.0  # a thousand steps take about one second of CPU time
_WORKFLOWS_AT_ONCE = 4  # threads that lay out workflows; the others wait their turn


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of the request that came with it."""

    key: str
    fingerprint: str


class Dispatch:
    """Accepts jobs. One a process."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        ledger: AsyncLedger,
        composer: Composer,
        connections: Connections,
        outbox: Outbox | None,
    ) -> None:
        """Take the parts; `outbox` is None where the ledger's Redis is the broker."""
        self._settings = settings
        self._ledger = ledger
        self._composer = composer
        self._connections = connections
        self._outbox = outbox
        self._laying_out = asyncio.Semaphore(_WORKFLOWS_AT_ONCE)

    def warm_up(self) -> None:
        """Make the template of every kind's message; making one takes milliseconds."""
        for contract in catalogue().values():
            if not issubclass(contract, WorkflowContract):
                limits = _message_options(contract, SubmissionOptions())
                self._composer.message(contract, uuid7(), "{}", limits, queue=contract.spec.queue)

    def refuse(self, submissions: Sequence[Submission], *, at: str = "") -> None:
        """Check what a schema cannot say. Raises `Problem` (422) that names each field.

        `at` is the pointer to the list of submissions in the body; empty where the body is the submission.
        """
        unknown: list[tuple[str, FieldError]] = []
        wrong: list[tuple[str, FieldError]] = []
        for index, submission in enumerate(submissions):
            base = f"{at}/{index}" if at else ""
            wrong += [(base, error) for error in _option_problems(submission)]
            unknown += [
                (base, FieldError(pointer=pointer(("params", *problem.path)), message=problem.message))
                for problem in check_connections(submission.params, self._connections)
            ]
        if unknown or wrong:
            errors = [
                FieldError(pointer=base + error.pointer, message=error.message) for base, error in [*unknown, *wrong]
            ]
            code = "unknown_connection" if unknown else "invalid_request"
            raise Problem(422, code, f"{errors[0].pointer}: {errors[0].message}", errors=errors)

    async def accept(self, submissions: Sequence[Submission], key: Key | None) -> tuple[Accepted, Sequence[Entry]]:
        """Write the jobs down, all or none. Raises `LedgerUnavailable` or, on a reused key, `Problem` (422)."""
        entries = [await self._entry(submission) for submission in submissions]
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
                "This Idempotency-Key came with another request before. Use a new key for a new request.",
                errors=[FieldError(pointer="Idempotency-Key", message="It is taken by another request.")],
            )
        if self._outbox is not None and accepted.outcome == "accepted":
            self._outbox.put(entries)
        return accepted, entries

    async def _entry(self, submission: Submission) -> Entry:
        if not isinstance(submission.params, WorkflowContract):
            return self._single(submission)
        async with self._laying_out:
            # Celery writes a chord's size to Redis with timeouts and retries of its own: ask first, with ours.
            await self._ledger.read("")
            try:
                async with asyncio.timeout(_LAYING_OUT_S):
                    return await asyncio.to_thread(self._workflow, submission)
            except (OperationalError, RedisError, OSError, TimeoutError) as failure:
                raise LedgerUnavailable("a workflow cannot be laid out") from failure

    def _single(self, submission: Submission) -> Entry:
        contract, options = type(submission.params), submission.options
        job_id, params = uuid7(), submission.params.model_dump_json()
        queue = options.queue or contract.spec.queue
        limits = _message_options(contract, options)
        return Entry(
            id=job_id,
            queue=queue,
            params=params,
            message=self._composer.message(contract, job_id, params, limits, queue=queue),
            **self._policy(contract, options),
            **_wishes(options),
        )

    def _workflow(self, submission: Submission) -> Entry:
        """Return a workflow's entry with those of its steps. Blocks."""
        workflow, options = submission.params, submission.options
        job_id, node = uuid7(), workflow.plan()
        planned = lay_out(node, uuid7)
        limits = {step.id: _message_options(step.plan.contract, options) for step in planned}
        messages = self._composer.workflow(node, planned, limits, job_id=job_id)
        followers = _followers(planned)
        wishes = _wishes(options)

        def entry(step: PlannedStep) -> Entry:
            return Entry(
                id=step.id,
                queue=step.plan.contract.spec.queue,
                params=to_json(step.plan.params).decode(),
                message=messages.get(step.id),
                due_at_ms=None if step.after else wishes["due_at_ms"],
                job_id=job_id,
                step=step.plan.name,
                after=step.after,
                before=tuple(followers[step.id]),
                **self._policy(step.plan.contract, options),
            )

        return Entry(
            id=job_id,
            queue=workflow.spec.queue,
            params=workflow.model_dump_json(),
            steps=tuple(entry(step) for step in planned),
            **self._policy(type(workflow), options),
            **wishes,
        )

    def _policy(self, contract: AnyContract, options: SubmissionOptions) -> dict[str, Any]:
        spec = contract.spec
        return {
            "kind": spec.kind,
            "priority": options.priority,
            "retention_s": self._settings.retention_s,
            "max_crashes": spec.max_crashes,
            "max_retries": spec.retry.max_retries if options.max_retries is None else options.max_retries,
            "outbox": self._outbox is not None,
        }


def _wishes(options: SubmissionOptions) -> dict[str, Any]:
    """Return what a job's own entry takes from its options, and its steps' do not."""
    if not options.model_fields_set:
        return {"due_at_ms": None}
    now_ms = time.time_ns() // 1_000_000
    due_at_ms = None
    if options.run_at is not None:
        due_at_ms = int(options.run_at.timestamp() * 1000)
    elif options.delay_s:
        due_at_ms = now_ms + int(options.delay_s * 1000)
    return {
        "due_at_ms": due_at_ms,
        "expires_at_ms": options.expires_in_s and now_ms + int(options.expires_in_s * 1000),
        "tags": tuple(dict.fromkeys(options.tags)),
        "options": options.model_dump_json(exclude_unset=True),
    }


def _message_options(contract: AnyContract, options: SubmissionOptions) -> MessageOptions:
    limits = contract.spec.limits
    if options.time_limit_s is None or options.time_limit_s >= limits.hard_s:
        return MessageOptions(options.priority, limits.soft_s, limits.hard_s)
    hard_s = options.time_limit_s
    to_clean_up_s = min(limits.hard_s - limits.soft_s, hard_s / 10)
    return MessageOptions(options.priority, hard_s - to_clean_up_s, hard_s)


def _followers(planned: Sequence[PlannedStep]) -> dict[str, list[str]]:
    followers: dict[str, list[str]] = {step.id: [] for step in planned}
    for step in planned:
        for before in step.after:
            followers[before].append(step.id)
    return followers


def _option_problems(submission: Submission) -> Iterator[FieldError]:
    options, spec = submission.options, submission.params.spec
    if not options.model_fields_set:
        return
    if options.time_limit_s is not None and options.time_limit_s > spec.limits.hard_s:
        most = f"{spec.kind} may take at most {spec.limits.hard_s:g} s."
        yield FieldError(pointer="/options/time_limit_s", message=most)
    if options.expires_in_s is not None and options.expires_in_s <= _starts_in_s(options):
        yield FieldError(pointer="/options/expires_in_s", message="It would expire before it is to start.")
    if options.queue is None:
        return
    if isinstance(submission.params, WorkflowContract):
        own = "A workflow's steps go to the queues of their own kinds; leave it out."
        yield FieldError(pointer="/options/queue", message=own)
    elif options.queue not in known_queues():
        hint = nearest(options.queue, known_queues())
        yield FieldError(pointer="/options/queue", message=f"The queue is not known. {hint}")


def _starts_in_s(options: SubmissionOptions) -> float:
    if options.run_at is not None:
        return options.run_at.timestamp() - time.time()
    return options.delay_s or 0.0
