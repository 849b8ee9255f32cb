"""`@runs`: what stands between Celery and a task body.

Claim, check the parameters, run the body, check the result, end the job in the ledger. The body is an ordinary
function of its parameters and a `Run`, and stays one: the decorator returns it unchanged, so that a test calls it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import Celery
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.exceptions import Retry as CeleryRetry
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from shared.artifacts import ArtifactStore
from shared.backend import owner
from shared.broker import DEFAULT_PRIORITY, broker_settings
from shared.contract import AnyContract, Contract, Retry, feed
from shared.errors import ClaimLost, DefinitionError, TaskFailure, TimeLimitReached, TransientFailure, redact
from shared.ledger import Ledger
from shared.records import Claim, Entry, Refusal
from worker.delivery import message_of
from worker.run import CancelRequested, Run, entered
from worker.scratch import attempt_folder

__all__ = ["Definition", "Run", "backoff_s", "definitions", "register", "runs"]

logger = logging.getLogger(__name__)

MAX_RESULT_BYTES = 256 * 1024
# The ledger puts the reason that the request gave in its place.
_CANCELLED = TaskFailure("cancelled", "It stopped on request.")

ContractT = TypeVar("ContractT", bound=Contract[Any])
ResultT = TypeVar("ResultT", bound=BaseModel)
Body = Callable[[Any, Run], BaseModel]


@dataclass(frozen=True, slots=True)
class _Delivery:
    """What a message brought: Celery's request and the task's arguments."""

    request: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    started: float  # time.monotonic() at its arrival, from when Celery's soft time limit counts, too


@dataclass(frozen=True, slots=True)
class Definition:
    """A contract and the function that runs it."""

    contract: AnyContract
    body: Body


_definitions: dict[str, Definition] = {}


def runs(
    contract: type[ContractT],
) -> Callable[[Callable[[ContractT, Run], ResultT]], Callable[[ContractT, Run], ResultT]]:
    """Declare that the decorated function is the task of `contract`. Returns the function unchanged.

    Raises `DefinitionError` if another function already is.
    """

    def declare(body: Callable[[ContractT, Run], ResultT]) -> Callable[[ContractT, Run], ResultT]:
        known = _definitions.get(contract.spec.kind)
        if known is not None and known.body.__qualname__ != body.__qualname__:
            raise DefinitionError(
                f"{contract.spec.kind} is run by {known.body.__module__}.{known.body.__qualname__} already. "
                "A contract has one task; give the other function a contract of its own."
            )
        _definitions[contract.spec.kind] = Definition(contract, body)
        return body

    return declare


def definitions() -> dict[str, Definition]:
    """Return the declared tasks by kind."""
    return dict(_definitions)


def register(app: Celery, declared: Iterable[Definition]) -> None:
    """Make Celery tasks of the declared ones, under their kinds."""
    for definition in declared:
        _register(app, definition)


def _register(app: Celery, definition: Definition) -> None:
    spec = definition.contract.spec

    @app.task(  # type: ignore[call-overload, untyped-decorator]  # celery-types wants whole seconds
        name=spec.kind,
        bind=True,
        typing=False,
        max_retries=None,  # retries are the ledger's
        soft_time_limit=spec.limits.soft_s,
        time_limit=spec.limits.hard_s,
    )
    def deliver(task: Any, *args: Any, **kwargs: Any) -> Any:
        return _deliver(task.backend.ledger, definition, _Delivery(task.request, args, kwargs, time.monotonic()))


def _deliver(ledger: Ledger, definition: Definition, delivery: _Delivery) -> Any:
    """Run one delivery of a message: at most one of a job's deliveries runs the body at a time."""
    request = delivery.request
    claim = _claim(ledger, definition.contract, delivery)
    if isinstance(claim, Refusal):
        request.settled = True
        if claim.why == "succeeded":  # a duplicate: give the result again, so that a chain or chord goes on
            return json.loads(claim.result)
        logger.info("not run: %s", claim.why)
        raise Ignore(claim.why)
    try:
        with _attempt(definition.contract, request.id, claim, ledger) as run:
            return _settle(run, definition, delivery, claim)
    except CancelRequested as stopped:
        request.settled = True
        with contextlib.suppress(ClaimLost):  # somebody else has ended it meanwhile
            ledger.fail(request.id, token=claim.token, error=json.dumps(_CANCELLED.document()))
        raise Ignore(str(stopped)) from None
    except ClaimLost as lost:
        request.settled = True
        raise Ignore(str(lost)) from None


def _claim(ledger: Ledger, contract: AnyContract, delivery: _Delivery) -> Claim | Refusal:
    spec, settings, request = contract.spec, broker_settings(), delivery.request
    message = message_of(request, spec.kind, delivery.args, delivery.kwargs)
    adopted = Entry(  # for a message that somebody's own Celery client sent past the gateway
        id=request.id,
        kind=spec.kind,
        queue=spec.queue,
        priority=DEFAULT_PRIORITY,
        params=json.dumps(delivery.kwargs),
        retention_s=settings.retention_s,
        max_crashes=spec.max_crashes,
        max_retries=spec.retry.max_retries,
        message=message,
        outbox=not settings.shares_redis,
    )
    return ledger.claim(
        request.id, owner=owner(), worker=request.hostname, lease_s=settings.lease_s, message=message, adopt=adopted
    )


@contextlib.contextmanager
def _attempt(contract: AnyContract, job_id: str, claim: Claim, ledger: Ledger) -> Iterator[Run]:
    with attempt_folder(job_id) as scratch:
        run = Run(
            job_id=job_id,
            kind=contract.spec.kind,
            attempt=claim.attempt,
            token=claim.token,
            idempotency_key=job_id,
            scratch=scratch,
            store=ArtifactStore(broker_settings().store_url),
            ledger=ledger,
        )
        with entered(run):
            yield run


def _settle(run: Run, definition: Definition, delivery: _Delivery, claim: Claim) -> Any:
    """Run the body and write the outcome, whatever it is. Returns the result or raises what Celery is to see."""
    outcome = _outcome(run, definition, delivery)
    artifacts = json.dumps([artifact.model_dump(mode="json") for artifact in run.artifacts])
    if isinstance(outcome, str):
        with contextlib.suppress(CancelRequested):  # too late: what it did is done
            run.report_pending()
        run.ledger.succeed(run.job_id, token=run.token, result=outcome, artifacts=artifacts)
        delivery.request.settled = True
        return json.loads(outcome)
    error = json.dumps(outcome.document())
    with contextlib.suppress(CancelRequested):  # then this failure is how it stopped
        run.report_pending()
    if isinstance(outcome, TransientFailure) and claim.retries < claim.max_retries:
        wait_s = backoff_s(definition.contract.spec.retry, claim.retries, floor_s=outcome.retry_after_s or 0.0)
        run.ledger.retry(run.job_id, token=run.token, delay_s=wait_s, error=error)
        delivery.request.settled = True
        raise CeleryRetry(message=str(outcome), exc=outcome, when=wait_s)  # type: ignore[arg-type]  # a float is a Real
    run.ledger.fail(run.job_id, token=run.token, error=error, artifacts=artifacts)
    delivery.request.settled = True
    raise outcome from None


def _outcome(run: Run, definition: Definition, delivery: _Delivery) -> str | TaskFailure:
    """Return the body's result as JSON text, or why there is none. `ClaimLost` and cancellation pass through."""
    try:
        job = _parameters(definition.contract, delivery)
        run.idempotency_key = job.idempotency_key(run.job_id)
        return _result(definition.contract, definition.body(job, run))
    except (ClaimLost, CancelRequested, RedisError):  # the latter: see shared.backend
        raise
    except TaskFailure as failure:
        return failure
    except SoftTimeLimitExceeded:
        run.report()  # the signal also says that the job is to stop: then this raises
        return _interrupted(run, definition.contract, delivery)
    except MemoryError:
        return TaskFailure(
            "out_of_memory",
            "The job needed more memory than the worker may use.",
            remedy="Give it less data at a time, or run it on workers with more memory.",
        )
    except Exception as failure:
        logger.exception("unexpected error")
        return TaskFailure(
            "unexpected_error",
            redact(f"{type(failure).__name__}: {failure}")[:2_000],
            remedy="This is a defect of the task, not of the request; the worker's log has the traceback.",
        )


def _parameters(contract: AnyContract, delivery: _Delivery) -> Contract[Any]:
    try:
        params = feed(contract, delivery.kwargs, delivery.args[0]) if delivery.args else delivery.kwargs
        return contract.model_validate_json(json.dumps(params))
    except ValidationError as invalid:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in invalid.errors(include_url=False, include_input=False)
        )
        raise TaskFailure(
            "invalid_parameters",
            f"{contract.spec.kind} got parameters it does not take: {problems}",
            remedy="Gateway and workers may have different versions of the contract; deploy the same one.",
        ) from None
    except ValueError as mismatch:
        raise TaskFailure("invalid_parameters", str(mismatch), remedy="Check the order of the steps.") from None


def _result(contract: AnyContract, result: BaseModel) -> str:
    expected = contract.spec.result
    if not isinstance(result, expected):
        raise TaskFailure(
            "invalid_result",
            f"{contract.spec.kind} returned {type(result).__name__}, not {expected.__name__}.",
            remedy="This is a defect of the task: it must return what its contract says.",
        )
    text = expected.model_validate(result.model_dump()).model_dump_json()
    if len(text) > MAX_RESULT_BYTES:
        raise TaskFailure(
            "result_too_large",
            f"The result has {len(text)} bytes; at most {MAX_RESULT_BYTES} may travel.",
            remedy="Write it to a file, publish that as an artifact, and return the reference.",
        )
    return text


def _interrupted(run: Run, contract: AnyContract, delivery: _Delivery) -> TaskFailure:
    soft_s = float((delivery.request.timelimit or [None, None])[1] or contract.spec.limits.soft_s)
    if time.monotonic() - delivery.started >= soft_s - 1:
        return TimeLimitReached(soft_s)
    # The signal was meant for the job that this child ran before: this one is queued again, without blame.
    run.ledger.release(run.job_id, owner=owner())
    raise ClaimLost("interrupted by a stray signal")


def backoff_s(retry: Retry, retries: int, *, floor_s: float = 0.0) -> float:
    """Return the wait in seconds before retry `retries` + 1: full jitter, at least `floor_s`. See `Retry`."""
    ceiling = min(retry.backoff_max_s, retry.backoff_s * 2.0**retries)
    return max(floor_s, random.uniform(0, ceiling))  # noqa: S311 - spreads load; no secret depends on it
