"""Copy what a body prints to its job's log; it still goes to the worker's own output, too."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from shared.errors import CeleriacError

_LONGEST = 10_000  # characters after which a line is cut

Line = Callable[[str, str], None]  # takes the level and the text of a line


@contextmanager
def printed_to(line: Line) -> Iterator[None]:
    """Pass each line that is printed in the block to `line`: those of standard error with the level `warning`.

    Only this thread and those started in the block count. What other programs write is not captured.
    """
    strangers = set(threading.enumerate()) - {threading.current_thread()}
    out, errors = _Copied(sys.stdout, "info", line, strangers), _Copied(sys.stderr, "warning", line, strangers)
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            yield
        finally:
            out.end()
            errors.end()


class _Copied(io.TextIOBase):
    """A standard stream whose lines are also passed on."""

    def __init__(self, stream: TextIO | None, level: str, line: Line, strangers: set[threading.Thread]) -> None:
        super().__init__()
        self._stream, self._level, self._line = stream, level, line
        self._strangers = strangers
        self._main = threading.current_thread()
        self._begun = ""
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed says that it is a plain attribute
        return "utf-8"

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # the worker's own output is closed or full, which must not fail the body
            if self._stream is not None:
                self._stream.write(text)
        if threading.current_thread() not in self._strangers:
            with self._lock:
                *lines, self._begun = (self._begun + text).split("\n")
                if len(self._begun) > _LONGEST:
                    lines, self._begun = [*lines, self._begun], ""
            for one in lines:
                self._pass_on(one)
        return len(text)

    def end(self) -> None:
        """Pass on the last, unfinished line. The block has ended, so a request to stop no longer matters."""
        with self._lock:
            begun, self._begun = self._begun, ""
        with suppress(CeleriacError):
            self._pass_on(begun)

    def _pass_on(self, line: str) -> None:
        text = line.rstrip("\r").rpartition("\r")[2]  # of a progress bar, only what it showed last
        if not text.strip():
            return
        try:
            self._line(self._level, text)
        except CeleriacError:  # the job must stop: only the thread that runs the body may raise this
            if threading.current_thread() is self._main:
                raise

    def __getattr__(self, name: str) -> Any:  # `buffer` and the like
        return getattr(self._stream, name)
