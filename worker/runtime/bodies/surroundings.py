"""Restore what a body may change in its process, because the next job of this child runs in the same process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE")
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


@contextmanager
def restored() -> Iterator[None]:
    """Restore after the block: signals, working folder, environment, standard streams and similar.

    Otherwise a removed folder, or an ignored SIGUSR1 (the soft time limit), would make the next job fail.
    """
    with ExitStack() as back:
        if threading.current_thread() is threading.main_thread():
            _keep_signals(back)
        _keep_environment(back)
        back.callback(setattr, sys, "stdin", sys.stdin)
        back.callback(setattr, sys, "stdout", sys.stdout)
        back.callback(setattr, sys, "stderr", sys.stderr)
        back.callback(sys.setrecursionlimit, sys.getrecursionlimit())
        back.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        _keep_logging(back)
        back.callback(gc.enable if gc.isenabled() else gc.disable)
        back.callback(os.chdir, _folder())
        yield


def _keep_signals(back: ExitStack) -> None:
    back.callback(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in _SIGNALS)}

    def put_back() -> None:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, known in before.items():
            if known is not None and signal.getsignal(number) != known:  # None means that C code has set it
                signal.signal(number, known)

    back.callback(put_back)


def _keep_environment(back: ExitStack) -> None:
    before = dict(os.environ)

    def put_back() -> None:
        if dict(os.environ) != before:
            os.environ.clear()
            os.environ.update(before)

    back.callback(put_back)
    mask = os.umask(0)
    os.umask(mask)
    back.callback(os.umask, mask)


def _keep_logging(back: ExitStack) -> None:
    """Keep what decides on the lines of later jobs: `logging.basicConfig(force=True)` alone would end their logs."""
    root = logging.getLogger()
    back.callback(logging.disable, root.manager.disable)
    back.callback(root.setLevel, root.level)
    back.callback(setattr, root, "handlers", list(root.handlers))


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was removed under the worker
        return "/"
