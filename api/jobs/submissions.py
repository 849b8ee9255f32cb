"""The bodies that submit jobs: shapes made from the catalogue, shared by all that takes or makes submissions."""

from __future__ import annotations

from typing import Any

from api.http.bodies import Body
from api.jobs.schemas import Submission, batch_shape, submission_shape
from shared.contract.catalogue import catalogue

_SHAPE = submission_shape(catalogue())
SUBMISSION: Body[Submission] = Body("JobSubmission", _SHAPE, envelope=1)
BATCH: Body[Any] = Body("BatchSubmission", batch_shape(_SHAPE), envelope=3)
