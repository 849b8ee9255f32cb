"""Every error of the service, in one tree.

    CeleriacError
    ├── DefinitionError          a contract or a setting is wrong; raised at import or at start
    ├── LedgerUnavailable        the ledger does not respond, and nothing was accepted or changed
    ├── OutcomeUnknown           the ledger did not respond in time, and may have carried out the call
    ├── DamagedRecord            the ledger's record of a job cannot be read
    ├── LedgerFull               the ledger has no room: nothing was accepted or changed
    ├── ClaimLost                this worker no longer holds the claim; its writes are refused
    └── TaskFailure              a job ends as ``failed`` with this code, message and remedy
        ├── TransientFailure     transient: the contract's retry policy applies
        └── TimeLimitReached     the soft time limit ran out

A ``code`` is stable and meant for programs; a ``message`` says what is wrong; a ``remedy`` is what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from shared.texts import finite, plain, said

LONGEST_WAIT_S = 7 * 86_400.0  # the maximum of retry_after_s
_CODE_LENGTH = 100


class CeleriacError(Exception):
    """Base of the service's own errors."""


class DefinitionError(CeleriacError):
    """A contract, task or setting is wrong. The text names it and says how to fix it."""


class LedgerUnavailable(CeleriacError):
    """The ledger does not respond; it is known that nothing was accepted or changed."""


class OutcomeUnknown(CeleriacError):
    """The ledger did not respond in time, and may have carried out the call."""


class LedgerFull(CeleriacError):
    """The ledger's memory or disk is full, or nearly; nothing was accepted or changed."""


class DamagedRecord(CeleriacError):
    """The record of a job in the ledger, or what belongs to it, cannot be read. The text says what is wrong with it."""

    def __init__(self, job_id: str, why: object) -> None:
        super().__init__(said(why, 300))
        self.job_id = job_id


class ClaimLost(CeleriacError):
    """Another worker holds the claim or the job has ended, so this worker's writes are refused."""


class TaskFailure(CeleriacError):
    """End the job as ``failed``.

    Raise it (or `TransientFailure`) from a task body. `details` holds small values for programs. Whatever is given
    becomes texts and JSON values of bounded size, without credentials.
    """

    retryable = False
    # defaults for a subclass whose author forgot super().__init__()
    code: str = "task_failed"
    message: str = ""
    remedy: str = ""
    details: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, code: str, message: str, *, remedy: str = "", **details: Any) -> None:
        self.code = said(code, _CODE_LENGTH)
        self.message = said(message)
        self.remedy = said(remedy)
        self.details = plain(details)
        super().__init__(self.code, self.message, self.remedy)

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
    retry_after_s: float | None = None

    def __init__(
        self, code: str, message: str, *, remedy: str = "", retry_after_s: float | None = None, **details: Any
    ) -> None:
        super().__init__(code, message, remedy=remedy, **details)
        #: The delay that the other side requested (HTTP Retry-After), in seconds; the minimum of the backoff. It is 0
        #: to a week; anything but a number counts as not given.
        self.retry_after_s = _seconds(retry_after_s)


def as_raised(failure: TaskFailure) -> TaskFailure:
    """Return `failure` with valid, bounded values, whatever its subclass or the code that raised it has set."""
    given: object = failure.details
    details = given if isinstance(given, Mapping) else {"details": given}
    made: TaskFailure = TransientFailure("", "") if isinstance(failure, TransientFailure) else TaskFailure("", "")
    made.code = said(failure.code, _CODE_LENGTH) or TaskFailure.code
    made.message, made.remedy, made.details = said(failure.message), said(failure.remedy), plain(details)
    if isinstance(made, TransientFailure):
        made.retry_after_s = _seconds(getattr(failure, "retry_after_s", None))
    made.args = (made.code, made.message, made.remedy)
    return made


def _seconds(given: object) -> float | None:
    number = finite(given)
    return None if number is None else min(max(number, 0.0), LONGEST_WAIT_S)


class TimeLimitReached(TaskFailure):
    """The job needed more than its hard limit of `limit_s`; or the item with the index `item` of a map did.

    With `interrupted_after_s`, the soft limit, the body was interrupted before that and could clean up.
    """

    def __init__(self, limit_s: float, *, interrupted_after_s: float | None = None, item: int | None = None) -> None:
        what, option = ("job", "options.time_limit_s") if item is None else ("item", "item_time_limit_s")
        where, details = ("", {}) if item is None else (f"item {item}: ", {"item": item})
        how = f"; it was interrupted after {interrupted_after_s:g} s" if interrupted_after_s is not None else ""
        super().__init__(
            "time_limit_exceeded",
            f"{where}The {what} needs longer than its time limit of {limit_s:g} s{how}.",
            remedy=f"Reduce the work of the {what}, or set a larger {option} within the kind's limit.",
            limit_s=limit_s,
            **details,
        )


def _rebuild(cls: type[TaskFailure], attributes: dict[str, Any]) -> TaskFailure:
    failure = cls.__new__(cls)
    Exception.__init__(failure, attributes["code"], attributes["message"], attributes["remedy"])
    failure.__dict__.update(attributes)
    return failure
