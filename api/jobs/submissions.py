"""The bodies that submit jobs: shapes made from the catalogue, shared by all that takes or makes submissions.

A job's own part of a submission is its contract; there is no second description of it here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, Field, create_model

from api.http.bodies import Body
from api.http.models import In
from shared.contract.catalogue import Catalogue, catalogue
from shared.contract.options import SubmissionOptions

BATCH_MAX = 1_000


class Submission(In):
    """A job to be. The models of the kinds derive from this one and give `kind` and `params` their types."""

    kind: str = Field(description="What kind of job it is; see `GET /job-kinds`.")
    params: Any = Field(description="The parameters of the kind.")
    options: SubmissionOptions = Field(default_factory=SubmissionOptions, description="How it is to be run.")


def submission_shape(catalogue: Catalogue, *, base: type[BaseModel] = Submission, prefix: str = "Submit") -> Any:
    """Return the type of one submission: the union of all kinds, told apart by `kind`; each derives from `base`."""
    models = tuple(
        create_model(
            prefix + "".join(part.capitalize() for part in kind.replace(".", "_").split("_")),
            __base__=base,
            __doc__=contract.spec.summary,
            kind=(_exactly(kind), Field(description="The kind of job.")),
            params=(contract, Field(description=contract.spec.summary)),
        )
        for kind, contract in catalogue.items()
    )
    if len(models) == 1:
        return models[0]
    return Annotated[Union[models], Field(discriminator="kind")]  # noqa: UP007 - the members are known at run time


def _exactly(kind: str) -> Any:
    return Literal[kind]


def batch_shape(submission: Any) -> type[BaseModel]:
    """Return the type of a batch of submissions."""
    return create_model(
        "BatchSubmission",
        __base__=In,
        __doc__="Jobs that are accepted together or not at all.",
        jobs=(
            list[submission],
            Field(min_length=1, max_length=BATCH_MAX, description="The jobs, in order."),
        ),
    )


_SHAPE = submission_shape(catalogue())
SUBMISSION: Body[Submission] = Body("JobSubmission", _SHAPE, envelope=1)
BATCH: Body[Any] = Body("BatchSubmission", batch_shape(_SHAPE), envelope=3)
