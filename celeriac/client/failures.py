"""What a call of the gateway can raise.

ClientFailure
├── Unreachable        no answer, or not that of a gateway
├── Refused            a problem document (RFC 9457)
├── JobFailed          the job ended, but did not succeed
├── NotEnded           the job has not ended yet; also a TimeoutError
└── WrongChecksum      a downloaded file is not the one that the job made
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class ClientFailure(Exception):
    """A call of the gateway failed.

    `accepted` are the jobs of `submit_many` that were accepted in the batches before.
    """

    accepted: Sequence[Any] = ()


class Unreachable(ClientFailure):
    """The gateway's URL does not respond, or is not that of a gateway."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field of a request."""

    pointer: str  # JSON pointer (RFC 6901) into the body, or the name of a query parameter or header
    message: str


class Refused(ClientFailure):
    """The gateway answered with a problem document (RFC 9457).

    `code` is stable and for programs; `errors` are the invalid fields.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], text: str, *, retry_after_s: float | None = None, sent: int = 1
    ) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        self.status = status
        self.problem = problem
        self.text = text  # exactly what the server sent
        self.retry_after_s = retry_after_s
        self.sent = sent  # how often the request was sent
        self.errors = tuple(
            FieldError(str(error.get("pointer", "")), str(error.get("message", "")))
            for error in problem.get("errors") or ()
            if isinstance(error, Mapping)  # of the gateway each is; something on the way may have its own problems
        )

    @property
    def code(self) -> str:
        """Stable name of the kind of problem, such as `unknown_job`; empty if the answer had none."""
        return str(self.problem.get("code") or "")

    @property
    def pointers(self) -> tuple[str, ...]:
        """Where the invalid fields are."""
        return tuple(error.pointer for error in self.errors)

    @property
    def request_id(self) -> str:
        """Id of the request in the gateway's logs."""
        return str(self.problem.get("request_id") or "")


class JobFailed(ClientFailure):
    """The job ended as failed, cancelled, expired or quarantined.

    `code`, `message` and `remedy` are those of its error; `document` is the job as `GET /jobs/{id}` has it.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        error = document["error"] or {}
        self.document = document
        self.job_id = str(document["id"])
        self.state = str(document["state"])
        self.code = str(error.get("code") or self.state)
        self.message = str(error.get("message") or "")
        self.remedy = str(error.get("remedy") or "")
        self.step = error.get("step")
        why = " ".join(filter(None, (self.message, self.remedy)))
        super().__init__(f"job {self.job_id} is {self.state}" + (f": {self.code}: {why}" if why else ""))


class NotEnded(ClientFailure, TimeoutError):
    """The job has not ended in the given time, or is asked for a result that it does not have yet."""

    def __init__(self, document: Mapping[str, Any], *, within_s: float | None = None) -> None:
        self.document = document
        self.job_id = str(document["id"])
        self.state = str(document["state"])
        within = "" if within_s is None else f" within {within_s:g} s"
        super().__init__(f"job {self.job_id} did not end{within}; it is {self.state}")


class WrongChecksum(ClientFailure):
    """A downloaded file does not have the SHA-256 that the job recorded; it was deleted."""
