"""Celery's result backend on the ledger, so that the results of Celery and the states of the ledger always agree.

The wrapper of a task (`worker.runtime.task`) ends a job in the ledger, and the script writes the result key of Celery
in the same call. This backend handles only what the wrapper cannot know: a dead child, a hard time limit, a message
that cannot be run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import redis
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import ChordError, NotRegistered
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from shared.errors import TaskFailure, TimeLimitReached
from shared.ledger.client import Ledger
from shared.ledger.records import Record
from shared.ledger.server import bounded, is_full
from shared.ledger.states import State
from shared.texts import json_text

_PATIENCE = 25  # attempts
_NOT_THE_JOBS_FAULT = (WorkerLostError, RedisError, SoftTimeLimitExceeded, ChordError)
OWNER_VARIABLE = "CELERIAC_OWNER"  # the id of this worker process, in the environment of its children


class _Patience(Retry):
    """Retries also while the server refuses writes. Of other error replies, a repetition would get the same."""

    def call_with_retry(
        self,
        do: Any,
        fail: Any,
        is_retryable: Any = None,
        with_failure_count: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """Do it until it succeeds or the attempts are used up."""
        return super().call_with_retry(do, fail, is_retryable or _is_passing, with_failure_count)


def _is_passing(failure: Exception) -> bool:
    return not isinstance(failure, ResponseError) or isinstance(failure, ReadOnlyError) or is_full(failure)


class LedgerBackend(RedisBackend):
    """Redis result backend that leaves jobs of the ledger to the ledger, and stores other tasks as Celery does."""

    #: Whether the worker has killed the child of a job that lost its claim, so that its death is not to be told.
    was_stopped: Callable[[str], bool] = staticmethod(lambda _: False)
    #: Return the failure of a job whose child the worker has killed in an item that exceeded its time limit.
    limit_reached: Callable[[str], TimeLimitReached | None] = staticmethod(lambda _: None)
    #: In the main process of a worker: takes what is to be told to the ledger later. See `worker.upkeep.endings`.
    later: Callable[[str, Callable[[LedgerBackend], object]], None] | None = None

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger in the same database as the results."""
        client = redis.Redis.from_url(
            str(self.url),  # type: ignore[attr-defined]  # celery-types leaves it out
            **bounded() | {"retry_on_error": [ResponseError]},
            # Retries for about a minute, so that the ledger can restart or be emptied. Every transition is idempotent.
            retry=_Patience(ExponentialWithJitterBackoff(base=0.1, cap=4), _PATIENCE),
        )
        return Ledger(client)

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store results of tasks that the ledger does not know. See the docstring of the module."""
        if settled(request):
            return result
        record = self.ledger.read(task_id)
        if not isinstance(record, Record):
            return super().store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        if state == states.FAILURE and record.state in {State.RUNNING, State.QUEUED}:
            self._fail(task_id, result)
        elif state == states.REVOKED:  # by Flower, or Celery's control commands
            self.ledger.cancel(task_id, reason="Revoked through Celery.")
            self.ledger.release(task_id, owner=claim_owner())  # its child has ended already, if there was one
        return result

    def _fail(self, task_id: str, failure: Exception) -> None:
        is_over_limit = isinstance(failure, TimeLimitExceeded)
        if is_over_limit:
            error = TimeLimitReached(float(failure.args[0])).document()
        elif isinstance(failure, TaskFailure):
            error = failure.document()
        else:
            error = _not_runnable(f"No worker could run the job: {failure!r}").document()
        # A job over its limit that is queued has lost its claim, so it may run elsewhere.
        self.ledger.fail_as_owner(task_id, owner=claim_owner(), error=json_text(error), unclaimed=not is_over_limit)

    def mark_as_failure(self, task_id: str, exc: Exception, *args: Any, **kwargs: Any) -> None:
        """Release a job that did not cause its failure; report a failure to Celery only if the job has ended.

        Its child died, or the ledger was unavailable for longer than a worker retries. If the job was not claimed, the
        keeper publishes it again.
        """
        if getattr(kwargs.get("request"), "is_eager", False):  # there is no job: see worker.runtime.task
            return
        if isinstance(exc, NotRegistered):
            exc = _not_runnable(f"No worker that consumes this queue has the kind {exc.args[0]!r}.")
        over_limit = None
        if isinstance(exc, WorkerLostError):
            if self.was_stopped(task_id):
                return
            over_limit = self.limit_reached(task_id)
        self._tell(task_id, lambda backend: backend._end(task_id, exc, over_limit, *args, **kwargs))  # noqa: SLF001

    def mark_as_revoked(self, task_id: str, *args: Any, **kwargs: Any) -> None:
        """Cancel a job that was revoked through Celery."""
        self._tell(task_id, lambda backend: backend._revoke(task_id, *args, **kwargs))  # noqa: SLF001

    def _tell(self, task_id: str, tell: Callable[[LedgerBackend], object]) -> None:
        if self.later is None:
            tell(self)
        else:
            self.later(task_id, tell)

    def _revoke(self, *args: Any, **kwargs: Any) -> None:
        super().mark_as_revoked(*args, **kwargs)

    def _end(
        self, task_id: str, exc: Exception, over_limit: TimeLimitReached | None, *args: Any, **kwargs: Any
    ) -> None:
        if over_limit is not None:
            if not self.ledger.fail_as_owner(task_id, owner=claim_owner(), error=json_text(over_limit.document())):
                return  # its claim is lost, so it may run elsewhere
            exc = over_limit
        if isinstance(exc, _NOT_THE_JOBS_FAULT) and not settled(kwargs.get("request")):
            became = self.ledger.release(task_id, owner=claim_owner(), crashed=True)
            if became in {"republished", "released", "refused"} and isinstance(self.ledger.read(task_id), Record):
                return
        if self._is_tolerated(task_id, exc, kwargs.get("request")):
            self.mark_as_done(task_id, None, request=kwargs.get("request"), store_result=False)
            return
        super().mark_as_failure(task_id, exc, *args, **kwargs)

    def _is_tolerated(self, task_id: str, exc: Exception, request: Any) -> bool:
        """Return whether this is a step that may fail, and store its failure."""
        record = self.ledger.read(task_id)
        if not isinstance(record, Record) or not record.may_fail:
            return False
        self.store_result(task_id, exc, states.FAILURE, request=request)
        return True


def _not_runnable(what: str) -> TaskFailure:
    remedy = "Check the name and the queue, and that its workers load the kind's family and have its version."
    return TaskFailure("not_runnable", what, remedy=remedy)


def claim_owner() -> str:
    """Return the id of this worker process, or of the parent of this child."""
    return os.environ.get(OWNER_VARIABLE, "")


def settled(request: Any) -> bool:
    """Return whether the wrapper has already recorded the outcome of this delivery in the ledger."""
    return bool(getattr(request, "settled", False))
