"""A pool of processes for a body.

Celery marks its children as daemonic, and such a process may not start processes of its own: `ProcessPoolExecutor` and
`multiprocessing.Pool` fail in a body with "daemonic processes are not allowed to have children".
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Any

from worker.runtime.parents import end_with


@contextmanager
def pool_of(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield an executor with `count` processes. They end with the block; an exception in it kills them.

    They are started with the method `spawn`: a body may have used libraries with threads, which a fork would copy in an
    unusable state.
    """
    before = set(multiprocessing.active_children())
    # Celery's children are processes of billiard: daemons, whose authkey only billiard's own processes can take.
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    billiards = dict(config)
    config.update(daemon=False, authkey=AuthenticationString(config["authkey"]))
    executor = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )
    try:
        yield executor
        executor.shutdown()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    finally:
        config.update(billiards)


def _begin(parent: int) -> None:
    """End with the parent, and ignore Ctrl-C, which the parent alone answers."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
