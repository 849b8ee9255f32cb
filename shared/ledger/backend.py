"""Celery's result backend on the ledger: what Celery stores and what the ledger says change together.

The wrapper of a task (`worker.runtime.task`) ends a job in the ledger, and the ledger's script writes Celery's own
result key in the same step. So of what Celery wants to store, only that remains which no wrapper can say: a child that
died, a hard time limit, a message that cannot be run.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import redis
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import ChordError
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shared.errors import TaskFailure, TimeLimitReached, redact
from shared.ledger.client import Ledger
from shared.ledger.records import Record
from shared.ledger.server import bounded
from shared.ledger.states import State
from shared.ledger.texts import json_text

_PATIENCE = 25  # tries
_NOT_THE_JOBS_FAULT = (WorkerLostError, RedisError, SoftTimeLimitExceeded, ChordError)
OWNER_VARIABLE = "CELERIAC_OWNER"  # the id of this worker process, given to its children by their environment


class LedgerBackend(RedisBackend):
    """Redis result backend that leaves ledger jobs to the ledger, and stores other tasks as Celery always does."""

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger in the same database as the results."""
        client = redis.Redis.from_url(
            str(self.url),  # type: ignore[attr-defined]  # celery-types leaves it out
            **bounded(),
            # A restart of the ledger is waited out: about a minute. Every transition may be asked for twice.
            retry=Retry(ExponentialWithJitterBackoff(base=0.1, cap=4), _PATIENCE),
        )
        return Ledger(client)

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store what the ledger does not know of. See the module's docstring."""
        if settled(request):
            return result
        record = self.ledger.read(task_id)
        if not isinstance(record, Record):
            return super().store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        if state == states.FAILURE and record.state in {State.RUNNING, State.QUEUED}:
            self._fail(task_id, result)
        elif state == states.REVOKED:  # by Flower, or Celery's own control commands
            self.ledger.cancel(task_id, reason="Revoked through Celery.")
            self.ledger.release(task_id, owner=claim_owner())  # its child is gone already, if there was one
        return result

    def _fail(self, task_id: str, failure: Exception) -> None:
        if isinstance(failure, TimeLimitExceeded):
            error = TimeLimitReached(float(failure.args[0])).document()
        else:
            error = TaskFailure(
                "not_runnable",
                redact(f"No worker could run it: {failure!r}"),
                remedy="Check that the workers of its queue load the kind's family and have its version.",
            ).document()
        self.ledger.fail_as_owner(task_id, owner=claim_owner(), error=json_text(error), unclaimed=True)

    def mark_as_failure(self, task_id: str, exc: Exception, *args: Any, **kwargs: Any) -> None:
        """Give a job back that failed for no reason of its own; Celery hears of a failure only if that ends it.

        Its child died, or the ledger was away for longer than a worker waits. If it was not even claimed, the
        keeper publishes it again.
        """
        if isinstance(exc, _NOT_THE_JOBS_FAULT) and not settled(kwargs.get("request")):
            became = self.ledger.release(task_id, owner=claim_owner(), crashed=True)
            if became in {"republished", "released", "refused"} and isinstance(self.ledger.read(task_id), Record):
                return
        if self._is_tolerated(task_id, exc, kwargs.get("request")):
            self.mark_as_done(task_id, None, request=kwargs.get("request"), store_result=False)
            return
        super().mark_as_failure(task_id, exc, *args, **kwargs)

    def _is_tolerated(self, task_id: str, exc: Exception, request: Any) -> bool:
        """Return whether this is a step that may fail; it has failed then."""
        record = self.ledger.read(task_id)
        if not isinstance(record, Record) or not record.may_fail:
            return False
        self.store_result(task_id, exc, states.FAILURE, request=request)
        return True


def claim_owner() -> str:
    """Return the id of the worker process that this process is, or is a child of."""
    return os.environ.get(OWNER_VARIABLE, "")


def settled(request: Any) -> bool:
    """Return whether the wrapper has already told the ledger how this delivery ended."""
    return bool(getattr(request, "settled", False))
