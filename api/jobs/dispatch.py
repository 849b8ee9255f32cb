"""From a checked submission to the ledger: what a schema cannot say is checked here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from api.http.pointers import pointer
from api.http.problems import FieldError, Problem
from api.jobs.schemas import Submission
from api.outbox import Outbox
from api.settings import GatewaySettings
from shared.connections.callbacks import CallbackSettings, problem_with_callback
from shared.connections.settings import Connections, check_connections
from shared.contract.catalogue import catalogue
from shared.contract.definition import Contract, known_queues
from shared.contract.options import SubmissionOptions
from shared.contract.spelling import did_you_mean
from shared.errors import LedgerUnavailable
from shared.ledger.client import AsyncLedger
from shared.ledger.records import Accepted, Entry
from shared.ledger.records import Submission as LedgerSubmission
from shared.workflows.elements import CanvasContract, Path
from shared.workflows.nodes import Node, WorkflowContract, message_bytes, names_of
from shared.workflows.planning import Planner

_LAYING_OUT_S = 30.0  # a thousand steps take about one second of CPU time
_MOST_STEPS = 5_000  # of the workflows of one request
_MOST_BYTES = 16 << 20  # of their messages
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
        self._laying_out = asyncio.Semaphore(_WORKFLOWS_AT_ONCE)

    def warm_up(self) -> None:
        """Make the template of every kind's message; making one takes milliseconds."""
        for contract in catalogue().values():
            if not issubclass(contract, WorkflowContract):
                self._planner.warm_up(contract)

    def refuse(self, submissions: Sequence[Submission], *, at: str = "") -> None:
        """Check what a schema cannot say. Raises `Problem` (422) that names each field.

        `at` is the pointer to the list of submissions in the body; empty where the body is the submission.
        """
        unknown: list[tuple[str, FieldError]] = []
        wrong: list[tuple[str, FieldError]] = []
        size = _Size()
        for index, submission in enumerate(submissions):
            base = f"{at}/{index}" if at else ""
            wrong += [(base, error) for error in _option_problems(submission)]
            wrong += [(base, error) for error in _callback_problems(submission, self._settings)]
            unknown += [(base, error) for error in self._unknown_connections(submission.params)]
            if not isinstance(submission.params, WorkflowContract):
                continue
            if not isinstance(submission.params, CanvasContract):
                wrong += [(base, error) for error in size.add(submission.params.plan())]
                continue
            node, elements = submission.params.inspected()
            wrong += [(base, _at_params(path, message)) for path, message in elements.problems]
            if not elements.problems:  # else there is no workflow yet, and its size may be beyond any
                wrong += [(base, error) for error in size.add(node)]
            unknown += [(base, error) for path, job in elements.jobs for error in self._unknown_connections(job, path)]
        if unknown or wrong:
            errors = [
                FieldError(pointer=base + error.pointer, message=error.message) for base, error in [*unknown, *wrong]
            ]
            code = "unknown_connection" if unknown else "invalid_request"
            raise Problem(422, code, f"{errors[0].pointer}: {errors[0].message}", errors=errors)

    async def check(self, submissions: Sequence[Submission], *, at: str = "") -> None:
        """Do what `refuse` does, beside the event loop where it takes long: a workflow may have a thousand elements."""
        if any(isinstance(submission.params, WorkflowContract) for submission in submissions):
            await asyncio.to_thread(self.refuse, submissions, at=at)
        else:
            self.refuse(submissions, at=at)

    def _unknown_connections(self, job: Contract[Any], path: Path = ()) -> Iterator[FieldError]:
        for problem in check_connections(job, self._connections):
            yield _at_params((*path, *problem.path), problem.message)

    async def accept(
        self, submissions: Sequence[Submission], key: Key | None, **lineage: Any
    ) -> tuple[Accepted, Sequence[Entry]]:
        """Write the jobs down, all or none. Raises `LedgerUnavailable` or, on a reused key, `Problem` (422).

        `lineage` says where they come from: see `Planner.entry`.
        """
        entries = [await self._entry(submission, lineage) for submission in submissions]
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

    async def _entry(self, submission: Submission, lineage: Mapping[str, Any]) -> Entry:
        if not isinstance(submission.params, WorkflowContract):
            return self._planner.entry(submission.params, submission.options, **lineage)
        async with self._laying_out:
            # Celery writes a chord's size to Redis with timeouts and retries of its own: ask first, with ours.
            await self._ledger.read("")
            try:
                async with asyncio.timeout(_LAYING_OUT_S):
                    return await asyncio.to_thread(
                        self._planner.entry, submission.params, submission.options, **lineage
                    )
            except (OperationalError, RedisError, OSError, TimeoutError) as failure:
                raise LedgerUnavailable("a workflow cannot be laid out") from failure


def dispatch_of(request: Request) -> Dispatch:
    """Return the process's `Dispatch`. No dependency: resolving one would cost a tenth of accepting a job."""
    dispatch: Dispatch = request.app.state.dispatch
    return dispatch


@dataclass
class _Size:
    """Adds up the workflows of one request, whose steps and messages are all written in one call of the ledger."""

    steps: int = 0
    bytes: int = 0

    def add(self, node: Node) -> Iterator[FieldError]:
        before = self.steps <= _MOST_STEPS and self.bytes <= _MOST_BYTES
        self.steps += sum(1 for _ in names_of(node))
        self.bytes += message_bytes(node)
        if before and self.steps > _MOST_STEPS:
            most = f"The workflows of one request have at most {_MOST_STEPS} steps together. Make several requests."
            yield FieldError(pointer="/params", message=most)
        elif before and self.bytes > _MOST_BYTES:
            what = (
                f"With it, the messages of this request have more than {_MOST_BYTES >> 20} MiB: each of several "
                "parallel steps carries all the steps after them. Have fewer of either, or smaller parameters."
            )
            yield FieldError(pointer="/params", message=what)


def _at_params(path: Path, message: str) -> FieldError:
    return FieldError(pointer=pointer(("params", *path)), message=message)


def _option_problems(submission: Submission) -> Iterator[FieldError]:
    options, spec = submission.options, submission.params.spec
    if not options.model_fields_set:
        return
    if options.time_limit_s is not None and options.time_limit_s > spec.limits.hard_s:
        most = f"{spec.kind} may take at most {spec.limits.hard_s:g} s."
        yield FieldError(pointer="/options/time_limit_s", message=most)
    if options.expires_in_s is not None and options.expires_in_s <= _starts_in_s(options):
        yield FieldError(pointer="/options/expires_in_s", message="It would expire before it is to start.")
    if options.concurrency_key is not None and isinstance(submission.params, WorkflowContract):
        own = "A workflow runs as its steps do, each by itself; leave it out, or submit the steps as jobs."
        yield FieldError(pointer="/options/concurrency_key", message=own)
    if options.queue is None:
        return
    if isinstance(submission.params, WorkflowContract):
        own = "A workflow's steps go to the queues of their own kinds; leave it out."
        yield FieldError(pointer="/options/queue", message=own)
    elif options.queue not in known_queues():
        hint = did_you_mean(options.queue, known_queues())
        yield FieldError(pointer="/options/queue", message=f"The queue is not known. {hint}")


def _callback_problems(submission: Submission, settings: CallbackSettings) -> Iterator[FieldError]:
    url = submission.options.callback_url
    if url is not None and (problem := problem_with_callback(url, settings)) is not None:
        yield FieldError(pointer="/options/callback_url", message=problem)


def _starts_in_s(options: SubmissionOptions) -> float:
    if options.run_at is not None:
        return options.run_at.timestamp() - time.time()
    return options.delay_s or 0.0
