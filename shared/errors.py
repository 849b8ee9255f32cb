"""Every error of the service, in one tree.

    CeleriacError
    ├── DefinitionError          a contract or a setting is wrong; raised at import or at start
    ├── LedgerUnavailable        the ledger does not respond, and nothing was accepted or changed
    ├── OutcomeUnknown           the ledger did not respond in time, and may have done what it was asked to do
    ├── LedgerFull               the ledger has no room: nothing was accepted or changed
    ├── ClaimLost                this worker no longer holds the claim; its writes are refused
    └── TaskFailure              a job ends as ``failed`` with this code, message and remedy
        ├── TransientFailure     transient: the contract's retry policy applies
        └── TimeLimitReached     the soft time limit ran out

A ``code`` is stable and meant for programs; a ``message`` says what is wrong; a ``remedy`` is what to do.
"""

from __future__ import annotations

import re
from typing import Any

_USERINFO = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/\"]*@"
)  # up to the last @: a password may contain one
_SENSITIVE = r"(password|passwd|pwd|secret|token|api_?key|signature|sig)"
_SECRET_PAIR = re.compile(rf"(?i)\b{_SENSITIVE}=('[^']*'|\"[^\"]*\"|[^\s&;'\"]+)")


def redact(text: str) -> str:
    """Return `text` without the user info of URLs and without the values of ``name=value`` pairs that look secret."""
    return _SECRET_PAIR.sub(r"\1=***", _USERINFO.sub(r"\g<scheme>", text))


def redact_field(name: str, value: object) -> str:
    """Return `value` as text for a log: fully hidden if `name` looks like a secret, else redacted."""
    return "***" if re.search(_SENSITIVE, name, re.IGNORECASE) else redact(str(value))


class CeleriacError(Exception):
    """Base of the service's own errors."""


class DefinitionError(CeleriacError):
    """A contract, task or setting is wrong. The text names it and says how to fix it."""


class LedgerUnavailable(CeleriacError):
    """The ledger does not respond; it is known that nothing was accepted or changed."""


class OutcomeUnknown(CeleriacError):
    """The ledger did not respond in time. What it was asked to do may be done."""


class LedgerFull(CeleriacError):
    """The ledger's memory or disk is full, or nearly; nothing was accepted or changed."""


class ClaimLost(CeleriacError):
    """Another worker holds the claim or the job has ended, so this worker's writes are refused."""


class TaskFailure(CeleriacError):
    """End the job as ``failed``.

    Raise it (or `TransientFailure`) from a task body. `details` holds small JSON values for programs.
    """

    retryable = False

    def __init__(self, code: str, message: str, *, remedy: str = "", **details: Any) -> None:
        self.code = code
        self.message = redact(message)
        super().__init__(code, self.message, remedy)
        self.remedy = remedy
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:  # a child process sends it to the main process
        return _rebuild, (type(self), self.__dict__.copy())

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def document(self) -> dict[str, Any]:
        """Return the job's ``error`` object."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "retryable": self.retryable,
            "details": self.details,
        }


class TransientFailure(TaskFailure):
    """A transient failure: a refused connection, a 503, a lock held by another process."""

    retryable = True

    def __init__(
        self, code: str, message: str, *, remedy: str = "", retry_after_s: float | None = None, **details: Any
    ) -> None:
        super().__init__(code, message, remedy=remedy, **details)
        #: The delay that the other side requested (HTTP Retry-After), in seconds; the minimum of the backoff.
        self.retry_after_s = retry_after_s


class TimeLimitReached(TaskFailure):
    """The job needed more than its hard limit of `limit_s`.

    With `interrupted_after_s`, its soft limit, the body was interrupted before that and could clean up.
    """

    def __init__(self, limit_s: float, *, interrupted_after_s: float | None = None) -> None:
        how = f"; it was interrupted after {interrupted_after_s:g} s" if interrupted_after_s is not None else ""
        super().__init__(
            "time_limit_exceeded",
            f"The job needs longer than its time limit of {limit_s:g} s{how}.",
            remedy="Reduce the work of the job, or set a larger options.time_limit_s within the kind's limit.",
            limit_s=limit_s,
        )


def _rebuild(cls: type[TaskFailure], attributes: dict[str, Any]) -> TaskFailure:
    failure = cls.__new__(cls)
    Exception.__init__(failure, attributes["code"], attributes["message"], attributes["remedy"])
    failure.__dict__.update(attributes)
    return failure
