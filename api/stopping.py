"""Work in a thread that ends when its time is up: a thread that nobody waits for would take the CPU from the others."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_AGAIN_AFTER_S = 0.1


class _Stopped(BaseException):
    """Raised in the thread: no `except Exception` on its way takes it for an error."""


class _Work(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_stopped = False

    def run(self) -> T:
        with self._lock:
            if self._is_stopped:
                raise _Stopped
            self._thread = threading.get_ident()
        try:
            return self._call()
        finally:
            with self._lock:
                self._thread = None

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop the thread, again and again until it has ended: a callback or a `__del__` may swallow the exception."""
        with self._lock:
            self._is_stopped = True
            if self._thread is None:
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(_Stopped))
        loop.call_later(_AGAIN_AFTER_S, self.stop, loop)


async def within(bound_s: float, call: Callable[[], T]) -> T:
    """Return what `call` returns in a thread. Raises `TimeoutError` after `bound_s`; the call is stopped then.

    It stops before its next line of Python, so not in the middle of a call that waits.
    """
    work = _Work(call)
    try:
        async with asyncio.timeout(bound_s):
            return await asyncio.to_thread(work.run)
    finally:
        work.stop(asyncio.get_running_loop())
