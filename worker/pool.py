"""Celery's pool of child processes, made to forget nothing when the connection to the broker is lost.

Then Celery resets its event loop: it drops what it has read of a child's message so far, and the jobs that a child has
been sent but has not confirmed. The rest of such a message would be read as the beginning of another, so that nothing
of this child is understood and it counts as busy; such a job would run while its claim is not renewed.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import GEN_SUSPENDED, getgeneratorstate, isgenerator
from typing import Any

from celery.concurrency import asynpool, prefork


class ResultHandler(asynpool.ResultHandler):
    """Reads each message of a child to its end, even if another event loop has read its beginning."""

    fileno_to_outq: dict[int, Any]  # Celery sets it; its types lack it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begun: dict[int, tuple[Any, Any]] = {}  # file descriptor -> the child and the generator that reads

    def _make_process_result(self, hub: Any) -> Callable[[int], None]:
        begin: Callable[[int], None] = super()._make_process_result(hub)  # type: ignore[misc]  # likewise

        def begin_or_go_on(descriptor: int) -> None:
            child, reading = self._begun.pop(descriptor, (None, None))
            is_of_it = child is not None and child is self.fileno_to_outq.get(descriptor)
            if is_of_it and getgeneratorstate(reading) == GEN_SUSPENDED:
                hub.add_reader(descriptor, reading)
            else:
                begin(descriptor)
            callback, _ = hub.readers.get(descriptor, (None, ()))
            if isgenerator(callback):
                self._begun[descriptor] = self.fileno_to_outq[descriptor], callback

        return begin_or_go_on


class AsynPool(asynpool.AsynPool):
    """Keeps the jobs that a child has been sent."""

    ResultHandler = ResultHandler
    _cache: dict[int, Any]  # Celery sets these two; its types lack them
    _busy_workers: set[int]

    def flush(self) -> None:
        """Forget the jobs that no child has been sent: the broker delivers them again."""
        sent = [(number, job) for number, job in self._cache.items() if not job._accepted and job._write_to]  # noqa: SLF001 - of billiard
        super().flush()
        for number, job in sent:
            child = job._write_to  # noqa: SLF001 - likewise
            if child._is_alive():  # noqa: SLF001 - likewise
                self._cache[number] = job
                self._busy_workers.add(child.inqW_fd)


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool with that; Celery takes it from `worker_pool`."""

    Pool = AsynPool
