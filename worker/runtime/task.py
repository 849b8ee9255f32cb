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
from pydantic import BaseModel
from redis.exceptions import RedisError

from shared.broker.settings import broker_settings
from shared.contract.artifacts import ArtifactStore, is_full
from shared.contract.definition import AnyContract, Contract, Retry
from shared.contract.options import DEFAULT_PRIORITY
from shared.errors import ClaimLost, DefinitionError, TaskFailure, TimeLimitReached, TransientFailure, redact
from shared.ledger.backend import claim_owner
from shared.ledger.client import Ledger
from shared.ledger.records import Claim, Entry, Refusal
from shared.ledger.states import State
from shared.workflows.canvas import PARAMETERS
from shared.workflows.nodes import MapStep
from worker.runtime.delivery import message_of
from worker.runtime.perform import Body, Upstream, perform, perform_each
from worker.runtime.run import CancelRequested, Run, entered
from worker.runtime.scratch import attempt_folder

__all__ = ["Definition", "Run", "backoff_s", "definitions", "register", "runs"]

logger = logging.getLogger(__name__)

# The ledger puts the reason that the request gave in its place.
_CANCELLED = TaskFailure("cancelled", "It stopped on request.")

ContractT = TypeVar("ContractT", bound=Contract[Any])
ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """What a message brought: Celery's request and the task's arguments."""

    request: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    started: float  # time.monotonic() at its arrival, from when Celery's soft time limit counts, too

    def upstream(self, claim: Claim) -> Upstream:
        """Return what the steps before returned: by the ledger, or by the canvas of somebody's own Celery client."""
        results = self.args[0] if self.args else json.loads(claim.upstream)
        return results if isinstance(results, list) else [results]


@dataclass(frozen=True, slots=True)
class Definition:
    """A contract and the function that runs it."""

    contract: AnyContract
    body: Body

    def perform(self, run: Run, delivery: _Delivery, claim: Claim) -> str:
        """Run the body; return its result as JSON text."""
        return perform(self.contract, self.body, run, delivery.kwargs, delivery.upstream(claim))


class _Mapped(Definition):
    """The same, once for each item of a message of Celery's map or starmap."""

    def perform(self, run: Run, delivery: _Delivery, claim: Claim) -> str:  # noqa: ARG002 - nothing is fed to a map
        task, items = delivery.kwargs["task"], delivery.kwargs["it"]
        names = task["options"].get(PARAMETERS)
        step = MapStep("", self.contract, task["kwargs"], items=tuple(items), names=names and tuple(names))
        return perform_each(self.contract, self.body, run, step.item_params())


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
    by_kind = {definition.contract.spec.kind: definition for definition in declared}
    for definition in by_kind.values():
        _register(app, definition)

    def replace_maps(sender: Celery, **_: Any) -> None:
        for name in ("celery.map", "celery.starmap"):
            sender.tasks.unregister(name)  # Celery's own, which asks no ledger
            _register_map(sender, name, by_kind)

    app.on_after_finalize.connect(replace_maps, weak=False)


def _register(app: Celery, definition: Definition) -> None:
    spec = definition.contract.spec

    @app.task(  # type: ignore[call-overload, untyped-decorator]  # celery-types wants whole seconds
        name=spec.kind,
        bind=True,
        typing=False,
        max_retries=None,  # retries are the ledger's
        soft_time_limit=spec.limits.soft_s,
        time_limit=spec.limits.hard_s,
        throws=(TaskFailure,),  # a line in the log, no traceback: a job that fails is no fault of the worker
    )
    def deliver(this: Any, /, *args: Any, **kwargs: Any) -> Any:  # a parameter may have any name
        return _deliver(this.backend.ledger, definition, _Delivery(this.request, args, kwargs, time.monotonic()))


def _register_map(app: Celery, name: str, by_kind: dict[str, Definition]) -> None:
    @app.task(name=name, bind=True, typing=False, max_retries=None, throws=(TaskFailure,))
    def deliver(this: Any, /, **kwargs: Any) -> Any:
        definition = by_kind[kwargs["task"]["task"]]
        mapped = _Mapped(definition.contract, definition.body)
        return _deliver(this.backend.ledger, mapped, _Delivery(this.request, (), kwargs, time.monotonic()))


def _deliver(ledger: Ledger, definition: Definition, delivery: _Delivery) -> Any:
    """Run one delivery of a message: at most one of a job's deliveries runs the body at a time."""
    request = delivery.request
    claim = _claim(ledger, definition.contract, delivery)
    if isinstance(claim, Refusal):
        request.settled = True
        if claim.why == State.SUCCEEDED:  # a duplicate: give the result again, so that a chain or chord goes on
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
    message = message_of(request, request.task, delivery.args, delivery.kwargs)
    adopted = Entry(  # for a message that somebody's own Celery client sent past the gateway
        id=request.id,
        kind=spec.kind,
        queue=spec.queue,
        priority=DEFAULT_PRIORITY,
        params=json.dumps(delivery.kwargs),
        retention_ms=int(settings.retention_s * 1000),
        max_crashes=spec.max_crashes,
        max_retries=spec.retry.max_retries,
        message=message,
        outbox=not settings.shares_redis,
    )
    return ledger.claim(
        request.id,
        owner=claim_owner(),
        worker=request.hostname,
        lease_s=settings.lease_s,
        message=message,
        adopt=adopted,
        root=request.root_id,
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
    outcome = _outcome(run, definition, delivery, claim)
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
    may_fail = run.ledger.fail(run.job_id, token=run.token, error=error, artifacts=artifacts)
    delivery.request.settled = True
    if may_fail:  # Celery is to go on with the steps after it
        return None
    raise outcome from None


def _outcome(run: Run, definition: Definition, delivery: _Delivery, claim: Claim) -> str | TaskFailure:
    """Return the body's result as JSON text, or why there is none. `ClaimLost` and cancellation pass through."""
    try:
        return definition.perform(run, delivery, claim)
    except (ClaimLost, CancelRequested, RedisError):  # the latter: see shared.ledger.backend
        raise
    except TaskFailure as failure:
        return failure
    except SoftTimeLimitExceeded:
        run.report()  # the signal also says that the job is to stop: then this raises
        return _interrupted(run, definition.contract, delivery)
    except OSError as failure:
        return _broken(failure)
    except MemoryError:
        return TaskFailure(
            "out_of_memory",
            "The job needed more memory than the worker may use.",
            remedy="Give it less data at a time, or run it on workers with more memory.",
        )
    except BaseException as failure:  # noqa: BLE001 - sys.exit() in a body is the job's failure, too
        return _unexpected(failure)


def _broken(failure: OSError) -> TaskFailure:
    if is_full(failure):
        return TransientFailure(
            "scratch_full",
            "The worker's disk has no room for the job's temporary files.",
            remedy="Free space in the worker's temporary folder or enlarge it, or give the job less data.",
        )
    return _unexpected(failure)


def _unexpected(failure: BaseException) -> TaskFailure:
    logger.error("unexpected error", exc_info=failure)
    return TaskFailure(
        "unexpected_error",
        redact(f"{type(failure).__name__}: {failure}")[:2_000],
        remedy="This is a defect of the task, not of the request; the worker's log has the traceback.",
    )


def _interrupted(run: Run, contract: AnyContract, delivery: _Delivery) -> TaskFailure:
    soft_s = float((delivery.request.timelimit or [None, None])[1] or contract.spec.limits.soft_s)
    if time.monotonic() - delivery.started >= soft_s - 1:
        return TimeLimitReached(soft_s)
    # The signal was meant for the job that this child ran before: this one is queued again, without blame.
    run.ledger.release(run.job_id, owner=claim_owner())
    raise ClaimLost("interrupted by a stray signal")


def backoff_s(retry: Retry, retries: int, *, floor_s: float = 0.0) -> float:
    """Return the wait in seconds before retry `retries` + 1: full jitter, at least `floor_s`. See `Retry`."""
    ceiling = min(retry.backoff_max_s, retry.backoff_s * 2.0**retries)
    return max(floor_s, random.uniform(0, ceiling))  # noqa: S311 - spreads load; no secret depends on it
