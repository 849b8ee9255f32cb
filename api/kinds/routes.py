"""Routes of the catalogue of kinds."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from fastapi import APIRouter

from api.http.problems import Problem, problems
from api.kinds.schemas import JobKind, JobKindList, JobKindSummary
from shared.contract.catalogue import catalogue
from shared.contract.definition import AnyContract
from shared.contract.params import schema_of
from shared.contract.spelling import did_you_mean
from shared.workflows.definition import WorkflowContract

router = APIRouter(tags=["job kinds"])


@router.get("/job-kinds", summary="List the kinds of job")
async def list_job_kinds() -> JobKindList:
    """Return all kinds that `POST /jobs` accepts."""
    return JobKindList(kinds=[JobKindSummary(**_summary(contract)) for contract in catalogue().values()])


@router.get("/job-kinds/{kind}", summary="Describe a kind of job", responses=problems(404))
async def get_job_kind(kind: str) -> JobKind:
    """Return a kind with the JSON Schemas of its parameters and its result, its limits and examples."""
    if kind not in catalogue():
        raise Problem(404, "unknown_kind", f"There is no kind {kind[:100]!r}. {did_you_mean(kind, catalogue())}")
    return await asyncio.to_thread(_detail, kind)


@cache
def _detail(kind: str) -> JobKind:
    contract = catalogue()[kind]
    spec = contract.spec
    return JobKind(
        **_summary(contract),
        description=spec.description,
        max_crashes=spec.max_crashes,
        params_schema=schema_of(contract),
        result_schema=schema_of(spec.result, "serialization"),
        examples=[dict(example) for example in spec.examples],
    )


def _summary(contract: AnyContract) -> dict[str, Any]:
    spec = contract.spec
    return {
        "kind": spec.kind,
        "family": spec.family,
        "version": spec.version,
        "summary": spec.summary,
        "queue": spec.queue,
        "limits": spec.limits,
        "retry": spec.retry,
        "concurrency": spec.concurrency,
        "rate": spec.rate,
        "unique": spec.unique,
        "deprecated": spec.deprecated or None,
        "replaces": list(spec.replaces),
        "is_internal": spec.internal,
        "is_workflow": issubclass(contract, WorkflowContract),
    }
