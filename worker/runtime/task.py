"""`@runs`: the layer between Celery and a task body.

It claims the job, checks the parameters, runs the body, checks the result and ends the job in the ledger. The body
is a plain function of its parameters and a `Run`: the decorator returns it unchanged, so that a test can call it.
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

from shared.broker.adoption import adopted
from shared.broker.settings import broker_settings
from shared.contract.definition import AnyContract, Contract, Limits, Retry
from shared.contract.tasks import tasks
from shared.contract.versions import fingerprint
from shared.errors import ClaimLost, DefinitionError, TaskFailure, TimeLimitReached, TransientFailure, as_raised
from shared.ledger.backend import claim_owner
from shared.ledger.client import Ledger
from shared.ledger.records import Claim, Refusal
from shared.ledger.states import State
from shared.storage import ArtifactStore
from shared.texts import as_text, json_text
from shared.workflows.canvas import ITEM_LIMITS, PARAMETERS
from shared.workflows.nodes import MapStep
from worker.runtime import deadlines
from worker.runtime.alone import Notes, alone
from worker.runtime.bodies.printing import printed_to
from worker.runtime.bodies.surroundings import restored
from worker.runtime.delivery import message_of
from worker.runtime.perform import Body, ParametersRefused, Upstream, perform, perform_each
from worker.runtime.places import has_place, place_of
from worker.runtime.run import CancelRequested, Run, entered
from worker.runtime.scratch import attempt_folder, comes_of_full_disk, scratch_full
from worker.settings import worker_settings

__all__ = ["Definition", "Run", "backoff_s", "definitions", "register", "runs"]

logger = logging.getLogger(__name__)


ContractT = TypeVar("ContractT", bound=Contract[Any])
ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A delivered message: Celery's request and the task's arguments."""

    request: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    started: float  # time.monotonic() at its arrival, when Celery's soft time limit starts too

    def upstream(self, claim: Claim) -> Upstream:
        """Return the results of the previous steps: from the ledger, or from the canvas of another Celery client."""
        results = self.args[0] if self.args else json.loads(claim.upstream)
        return results if isinstance(results, list) else [results]


@dataclass(frozen=True, slots=True)
class Definition:
    """A contract and the function that runs it."""

    contract: AnyContract
    body: Body

    def perform(self, run: Run, delivery: _Delivery, claim: Claim) -> str:
        """Run the body; return its result as JSON text."""
        upstream = delivery.upstream(claim)
        return perform(self.contract, self.body, run, delivery.kwargs, upstream, version=claim.version)


class _Mapped(Definition):
    """Run the body for each item of a message of Celery's map or starmap."""

    def perform(self, run: Run, delivery: _Delivery, claim: Claim) -> str:
        task, given = delivery.kwargs["task"], delivery.kwargs["it"]
        if has_place(self.contract):
            raise TaskFailure(
                "not_for_maps",
                f"Each {self.contract.spec.kind} counts for a limit of how many run at once, which a map cannot keep.",
                remedy="Submit them as jobs, or as steps of a group.",
            )
        names, limits = task["options"].get(PARAMETERS), task["options"].get(ITEM_LIMITS)
        step = MapStep("", self.contract, task["kwargs"], items=tuple(given), names=names and tuple(names))
        within = limits and Limits(soft_s=limits[0], hard_s=limits[1])
        items = step.item_params()
        return perform_each(self.contract, self.body, run, items, within, version=claim.version)


def runs(
    contract: type[ContractT],
) -> Callable[[Callable[[ContractT, Run], ResultT]], Callable[[ContractT, Run], ResultT]]:
    """Declare that the decorated function is the task of `contract`. Returns the function unchanged.

    `@Contract.task` does the same, and type checkers compare the result with the contract, too.
    Raises `DefinitionError` if the function cannot run it, or if the contract already has another task.
    """
    given: Any = contract  # for authors without a type checker
    if not (isinstance(given, type) and issubclass(given, Contract)):
        name = getattr(given, "__name__", repr(given))
        raise DefinitionError(f"runs({name}): {name} is not a contract. Write @runs(YourContract) above the task.")

    def declare(body: Callable[[ContractT, Run], ResultT]) -> Callable[[ContractT, Run], ResultT]:
        contract.declare_task(body)
        return body

    return declare


def definitions() -> dict[str, Definition]:
    """Return the declared tasks by kind."""
    return {kind: Definition(task.contract, task.body) for kind, task in tasks().items()}


def register(app: Celery, declared: Iterable[Definition]) -> None:
    """Make Celery tasks of the declared ones, under their kinds."""
    by_kind = {  # and under the kinds that a contract replaces: their messages may still wait
        name: definition
        for definition in declared
        for name in (definition.contract.spec.kind, *definition.contract.spec.replaces)
    }
    for name, definition in by_kind.items():
        _register(app, name, definition)

    def replace_maps(sender: Celery, **_: Any) -> None:
        for name in ("celery.map", "celery.starmap"):
            sender.tasks.unregister(name)  # Celery's own, which does not use the ledger
            _register_map(sender, name, by_kind)

    app.on_after_finalize.connect(replace_maps, weak=False)


def _register(app: Celery, name: str, definition: Definition) -> None:
    spec = definition.contract.spec

    @app.task(  # type: ignore[call-overload, untyped-decorator]  # celery-types wants whole seconds
        name=name,
        bind=True,
        typing=False,
        max_retries=None,  # the ledger decides about retries
        soft_time_limit=spec.limits.soft_s,
        time_limit=spec.limits.hard_s,
        throws=(TaskFailure,),  # one log line without a traceback: a failed job is not an error of the worker
    )
    def deliver(this: Any, /, *args: Any, **kwargs: Any) -> Any:  # parameters of a contract may have any name
        return _deliver(this, definition, args, kwargs)


def _register_map(app: Celery, name: str, by_kind: dict[str, Definition]) -> None:
    @app.task(name=name, bind=True, typing=False, max_retries=None, throws=(TaskFailure,))
    def deliver(this: Any, /, **kwargs: Any) -> Any:
        definition = by_kind[kwargs["task"]["task"]]
        mapped = _Mapped(definition.contract, definition.body)
        return _deliver(this, mapped, (), kwargs)


def _deliver(this: Any, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one delivery of a message; at most one delivery of a job runs the body at a time."""
    request = this.request
    delivery = _Delivery(request, args, kwargs, time.monotonic())
    if request.is_eager:
        return _eager(definition, delivery)
    ledger = this.backend.ledger
    claim = _claim(ledger, definition.contract, delivery)
    if isinstance(claim, Refusal):
        request.settled = True
        if claim.why == State.SUCCEEDED:  # a duplicate: return the stored result, so that a chain or chord continues
            return json.loads(claim.result)
        logger.info("not run: %s", claim.why)
        raise Ignore(claim.why)
    try:
        with _attempt(definition.contract, request.id, claim, ledger) as run:
            return _settle(run, definition, delivery, claim)
    except CancelRequested as stopped:
        request.settled = True
        with contextlib.suppress(ClaimLost):  # the job was ended by another process
            ledger.stopped(request.id, token=claim.token)
        raise Ignore(str(stopped)) from None
    except ClaimLost as lost:
        request.settled = True
        raise Ignore(str(lost)) from None


def _eager(definition: Definition, delivery: _Delivery) -> Any:
    """Run the body in the process of the caller, who set Celery's `task_always_eager` or calls `apply`.

    There is no job: nothing waits for a ledger, and nothing is tried again.
    """
    store = ArtifactStore(broker_settings().store_url)
    with alone(definition.contract, delivery.request.id, store, Notes()) as run:
        return json.loads(definition.perform(run, delivery, Claim(run.token, run.attempt, 0, 0)))


def _claim(ledger: Ledger, contract: AnyContract, delivery: _Delivery) -> Claim | Refusal:
    settings, request = broker_settings(), delivery.request
    message = message_of(request, request.task, delivery.args, delivery.kwargs)
    return ledger.claim(
        request.id,
        owner=claim_owner(),
        worker=request.hostname,
        lease_s=settings.lease_s,
        message=message,
        adopt=adopted(contract, request.id, params=delivery.kwargs, message=message, settings=settings),
        root=request.root_id,
        place=place_of(contract, ledger, delivery.kwargs),
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
    """Run the body and write its outcome. Returns the result, or raises the exception meant for Celery."""
    outcome = _outcome(run, definition, delivery, claim)
    artifacts = json_text([artifact.model_dump(mode="json") for artifact in run.artifacts])
    if isinstance(outcome, str):
        with contextlib.suppress(CancelRequested):  # too late to cancel: the body has finished
            run.report_pending()
        run.ledger.succeed(run.job_id, token=run.token, result=outcome, artifacts=artifacts)
        delivery.request.settled = True
        return json.loads(outcome)
    error = json_text(outcome.document())
    with contextlib.suppress(CancelRequested):  # the job was to stop anyway; it ends with this failure
        run.report_pending()
    if isinstance(outcome, TransientFailure) and claim.retries < claim.max_retries:
        wait_s = backoff_s(definition.contract.spec.retry, claim.retries, floor_s=outcome.retry_after_s or 0.0)
        run.ledger.retry(run.job_id, token=run.token, delay_s=wait_s, error=error)
        delivery.request.settled = True
        raise CeleryRetry(message=str(outcome), exc=outcome, when=wait_s)  # type: ignore[arg-type]  # a float is a Real
    if isinstance(outcome, ParametersRefused) and _given_back(run, definition.contract, error):
        delivery.request.settled = True
        raise CeleryRetry(message=str(outcome), exc=outcome)
    may_fail = run.ledger.fail(run.job_id, token=run.token, error=error, artifacts=artifacts)
    delivery.request.settled = True
    if may_fail:  # Celery must continue with the next steps
        return None
    raise outcome from None


def _given_back(run: Run, contract: AnyContract, error: str) -> bool:
    """Leave the job to a worker with the version of the contract that accepted it; return whether it is."""
    return run.ledger.give_back(
        run.job_id,
        token=run.token,
        contract=fingerprint(contract),
        for_s=worker_settings().unknown_kind_s,
        error=error,
    )


def _outcome(run: Run, definition: Definition, delivery: _Delivery, claim: Claim) -> str | TaskFailure:
    """Return the body's result as JSON text, or its failure. `ClaimLost` and cancellation are raised."""
    until = deadlines.deadline(delivery.started, broker_settings().lease_s)  # the claim was made after this moment
    try:
        run.scratch.mkdir(mode=0o700)
        bounded = deadlines.bounded(run.job_id, claim.token, until=until)
        with restored(), printed_to(run.log_line), bounded:
            return definition.perform(run, delivery, claim)
    except (ClaimLost, CancelRequested):
        raise
    except ParametersRefused as refused:
        return refused
    except TaskFailure as failure:
        return as_raised(failure)
    except SoftTimeLimitExceeded:
        run.report()  # the same signal is used for a stop: then this raises
        return _interrupted(run, definition.contract, delivery)
    except MemoryError:
        return TaskFailure(
            "out_of_memory",
            "The job needed more memory than the worker may use.",
            remedy="Give the job less data, or run it on workers with more memory.",
        )
    except BaseException as failure:  # sys.exit() in a body is the job's failure, too
        if isinstance(failure, RedisError) and run.ledger.raised(failure):  # see shared.ledger.backend
            raise
        return scratch_full() if comes_of_full_disk(failure) else _unexpected(failure)


def _unexpected(failure: BaseException) -> TaskFailure:
    logger.error("unexpected error", exc_info=failure)
    return TaskFailure(
        "unexpected_error",
        f"{type(failure).__name__}: {as_text(failure)}",
        remedy="Fix the task, not the request; the worker's log has the traceback.",
    )


def _interrupted(run: Run, contract: AnyContract, delivery: _Delivery) -> TaskFailure:
    hard_s, soft_s = delivery.request.timelimit or (None, None)
    limits = contract.spec.limits
    interrupts_after_s = float(soft_s or limits.soft_s)
    if time.monotonic() - delivery.started >= interrupts_after_s - 1:
        return TimeLimitReached(float(hard_s or limits.hard_s), interrupted_after_s=interrupts_after_s)
    # The signal was meant for this child's previous job: this one is queued again and no attempt is counted.
    run.ledger.release(run.job_id, owner=claim_owner())
    raise ClaimLost("interrupted by a stray signal")


def backoff_s(retry: Retry, retries: int, *, floor_s: float = 0.0) -> float:
    """Return the backoff in seconds before retry `retries` + 1: full jitter, at least `floor_s`. See `Retry`."""
    ceiling = min(retry.backoff_max_s, retry.backoff_s * 2.0**retries)
    return max(floor_s, random.uniform(0, ceiling))  # noqa: S311 - spreads load; no secret depends on it
