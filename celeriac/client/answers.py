"""What the gateway answers, as values. `document` is the whole JSON object, `text` the same exactly as it was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError

from celeriac.client.failures import ClientFailure, JobFailed, NotEnded
from shared.contract.artifacts import Artifact
from shared.ledger.states import State

ResultT = TypeVar("ResultT")
Document = Mapping[str, Any]


@dataclass(frozen=True)
class _Answered:
    document: Document = field(repr=False)
    text: str = field(repr=False)

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.document["id"])


@dataclass(frozen=True)
class JobSummary(_Answered):
    """A job in a list: without its parameters, result, files and steps."""

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.document["kind"])

    @property
    def state(self) -> State:
        """Its state."""
        return State(self.document["state"])

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return self.state.is_final

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.kind!r}, {str(self.state)!r})"


@dataclass(frozen=True, repr=False)
class JobRef(JobSummary, Generic[ResultT]):
    """A job whose type of result is known."""

    result_type: type[BaseModel] | None = field(repr=False)


@dataclass(frozen=True, repr=False)
class Submitted(JobRef[ResultT]):
    """An accepted job: it is stored and will run."""

    existed: bool  # its kind is unique, and this is the job that has not ended: no other was made
    replayed: bool  # the same Idempotency-Key had submitted it before


@dataclass(frozen=True, repr=False)
class Job(JobRef[ResultT]):
    """A job as it is now."""

    @property
    def result(self) -> ResultT:
        """Its result. Raises `JobFailed` if it ended otherwise, `NotEnded` if it has not ended."""
        if not self.has_ended:
            raise NotEnded(self.document)
        if self.state is not State.SUCCEEDED:
            raise JobFailed(self.document)
        found = self.document["result"]
        if self.result_type is None:
            return cast("ResultT", found)
        try:
            return cast("ResultT", self.result_type.model_validate_json(json.dumps(found)))
        except ValidationError as other:
            raise ClientFailure(
                f"The result of job {self.id} is not that of your {self.result_type.__name__}: {other}. "
                "Use the contracts of the service's version."
            ) from None

    @property
    def artifacts(self) -> Sequence[Artifact]:
        """The files of the job itself; those of its steps are in `client.artifacts(job)`."""
        return [artifact_in(found) for found in self.document["artifacts"]]


@dataclass(frozen=True)
class Validated:
    """A submission that would be accepted; nothing was."""

    kind: str
    queue: str
    params: Document
    steps: Sequence[str]  # their names, if it is a workflow
    text: str = field(repr=False)


@dataclass(frozen=True)
class Cancellation:
    """What became of a request to cancel a job."""

    id: str
    state: (
        str  # `cancelled`, `cancel_requested` while its worker stops it, or `cancel_noted` for when its message comes
    )
    has_started: bool
    text: str = field(repr=False)


@dataclass(frozen=True)
class Event:
    """An event of a job: `name` is state, progress, log, cancel_requested, damaged or trimmed."""

    id: str  # to go on after it; empty for `trimmed`
    name: str
    document: Document
    text: str = field(repr=False)

    @property
    def step(self) -> str | None:
        """The step that it is about, if the job is a workflow."""
        return self.document.get("step")

    @property
    def ends_job(self) -> bool:
        """Whether this is the final state of the job."""
        return self.name == "state" and self.step is None and State(self.document["state"]).is_final


@dataclass(frozen=True)
class LogLine:
    """A line of a job's log."""

    at: datetime
    level: str
    message: str
    fields: Document
    step: str | None
    document: Document = field(repr=False)


@dataclass(frozen=True)
class JobArtifact:
    """A file of a job or of one of its steps."""

    artifact: Artifact
    step: str | None  # that made it, if the job is a workflow

    @property
    def name(self) -> str:
        """The file's name."""
        return self.artifact.name


@dataclass(frozen=True)
class Schedule(_Answered):
    """A schedule."""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.document["name"])

    @property
    def is_paused(self) -> bool:
        """Whether it submits no jobs."""
        return bool(self.document["paused"])


def artifact_in(found: Document) -> Artifact:
    """Return the reference in a document that may have more, such as a dataset. Raises `ClientFailure`."""
    try:
        return Artifact.model_validate({name: found.get(name) for name in Artifact.model_fields})
    except ValidationError as other:
        raise ClientFailure(f"The gateway's answer does not describe a file: {other}") from None


def log_line(document: Document) -> LogLine:
    """Return a line of `GET /jobs/{id}/logs`, or the `log` event with the same fields."""
    at = datetime.fromisoformat(document["at"])
    return LogLine(at, document["level"], document["message"], document["fields"], document["step"], document)
