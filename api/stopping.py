"""Run a function in a thread that is stopped when its time is up, because an abandoned thread would still use CPU."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_AGAIN_AFTER_S = 0.1


class _Stopped(BaseException):
    """Raised in the thread to stop it; `except Exception` does not catch it."""


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
        """Stop the thread; repeat until it has ended, because a callback or a `__del__` may swallow the exception."""
        with self._lock:
            self._is_stopped = True
            if self._thread is None:
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(_Stopped))
        loop.call_later(_AGAIN_AFTER_S, self.stop, loop)


async def within(bound_s: float, call: Callable[[], T]) -> T:
    """Return what `call` returns in a thread. Raises `TimeoutError` after `bound_s`, and stops the call.

    The call stops before its next line of Python, so not while it waits in C code.
    """
    work = _Work(call)
    try:
        async with asyncio.timeout(bound_s):
            return await asyncio.to_thread(work.run)
    finally:
        work.stop(asyncio.get_running_loop())
