"""Request bodies that submit jobs, built from the catalogue, and the answers, for all routes that accept submissions.

The parameters of a job are described by its contract only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union

from fastapi import Response
from pydantic import BaseModel, Field, JsonValue, create_model

from api.http.bodies import Body
from api.http.models import In
from api.jobs import view
from shared.contract.catalogue import Catalogue, catalogue
from shared.contract.definition import AnyContract
from shared.contract.options import SubmissionOptions
from shared.contract.params import Component
from shared.contract.spec import Spec
from shared.ledger.records import Accepted, Entry

BATCH_MAX = 1_000
_NO_OPTIONS = SubmissionOptions()  # frozen, so one is enough
_POLL_AFTER_S = "1"
ACCEPTED: dict[str, Any] = {
    "description": "Accepted: the job is stored and will run.",
    "headers": {
        "Retry-After": {"description": "Recommended seconds before the first poll.", "schema": {"type": "integer"}},
        "Idempotency-Replayed": {
            "description": "`true` if this replays the response to an earlier request.",
            "schema": {"type": "string"},
        },
        "Job-Existed": {
            "description": "`true` if the kind is unique and this is the job that has not ended: no other was made.",
            "schema": {"type": "string"},
        },
        "Warning": {
            "description": "`299`, and what to use instead, if the kind is deprecated.",
            "schema": {"type": "string"},
        },
    },
}
LOCATED = {
    **ACCEPTED,
    "headers": {
        **ACCEPTED["headers"],
        "Location": {"description": "The job.", "schema": {"type": "string"}},
    },
}


class Submission(In):
    """A job to submit. The models of the kinds derive from it and set the types of `kind` and `params`."""

    kind: str = Field(description="The kind of the job; see `GET /job-kinds`.")
    params: Any = Field(description="The parameters of the kind.")
    options: SubmissionOptions = Field(default_factory=lambda: _NO_OPTIONS, description="How to run it.")


def submission_shape(catalogue: Catalogue, base: type[BaseModel] = Submission) -> Any:
    """Return the type of one submission: the union of all kinds, discriminated by `kind`; each derives from `base`."""
    models = tuple(
        create_model(
            "Submit" + "".join(part.capitalize() for part in kind.replace(".", "_").split("_")),
            __base__=base,
            __doc__=contract.spec.summary,
            kind=(_exactly(kind, *contract.spec.replaces), Field(description="The kind of job.")),
            params=(contract, Field(description=_what(contract.spec), json_schema_extra=_marked(contract.spec))),
        )
        for kind, contract in catalogue.items()
    )
    if len(models) == 1:
        return models[0]
    # The members are known at run time.
    return Annotated[Union[models], Field(discriminator="kind"), Component("JobSubmission")]  # noqa: UP007


def example_of(contract: AnyContract) -> dict[str, Any]:
    """Return a submission with the first example of the contract."""
    return {"kind": contract.spec.kind, "params": dict(contract.spec.examples[0])}


def _what(spec: Spec) -> str:
    return f"{spec.summary} Deprecated: {spec.deprecated}" if spec.deprecated else spec.summary


def _marked(spec: Spec) -> dict[str, JsonValue]:
    return {"deprecated": True} if spec.deprecated else {}


def _exactly(*kinds: str) -> Any:
    return Literal[kinds]


def batch_shape(submission: Any) -> type[BaseModel]:
    """Return the model of a batch of submissions."""
    return create_model(
        "BatchSubmission",
        __base__=In,
        __doc__="Jobs that are accepted all or none.",
        jobs=(
            list[submission],
            Field(min_length=1, max_length=BATCH_MAX, description="The jobs, in order."),
        ),
    )


@cache  # for both bodies; only the document needs it
def _shown() -> Any:
    return submission_shape(catalogue().submitted())


_SHAPE = submission_shape(catalogue())
_EXAMPLES = {kind: example_of(contract) for kind, contract in catalogue().submitted().items()}
SUBMISSION: Body[Submission] = Body("JobSubmission", _SHAPE, envelope=1, shown=_shown, examples=_EXAMPLES)
BATCH: Body[Any] = Body(
    "BatchSubmission",
    batch_shape(_SHAPE),
    envelope=3,
    shown=lambda: batch_shape(_shown()),
    examples={"two jobs": {"jobs": list(_EXAMPLES.values())[:2]}},
)


def one_accepted(accepted: Accepted, entries: Sequence[Entry]) -> Response:
    """Return the answer to a submission, a rerun, or the run of a schedule."""
    job_id = accepted.ids[0]
    body = view.accepted(entries[0], job_id, accepted.created_at_ms, accepted.state)
    return _answer(body, accepted, entries, Location=f"/jobs/{job_id}")


def batch_accepted(accepted: Accepted, entries: Sequence[Entry]) -> Response:
    """Return the answer to a batch."""
    return _answer(view.batch_accepted(entries, accepted), accepted, entries)


def _answer(body: str, accepted: Accepted, entries: Sequence[Entry], **headers: str) -> Response:
    headers["Retry-After"] = _POLL_AFTER_S
    if warning := view.warning({entry.kind for entry in entries}):
        headers["Warning"] = warning
    return Response(body, 202, headers | view.outcome_headers(accepted), "application/json")
