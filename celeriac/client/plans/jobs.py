"""Jobs: submit, read, list, cancel, rerun, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import to_jsonable_python

from celeriac.client.answers import Cancellation, Job, JobRef, JobSummary, Submitted, Validated
from celeriac.client.failures import ClientFailure, FieldError, Refused
from celeriac.client.gateway import Gateway, segment
from celeriac.client.plans.asking import asked_document, new_key, paged, posted, read, with_body
from celeriac.client.wire import READ_TIMEOUT_S, Answer, Items, Plan, Request
from shared.ledger.states import State

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shared.contract.definition import Contract

    ResultType: TypeAlias = type[BaseModel] | None
    AnyJob: TypeAlias = Contract[Any] | str
    Reference: TypeAlias = JobRef[Any] | str

_BATCH_MAX = 1_000  # jobs of one call
_TOO_LARGE, _CONFLICT, _GONE = 413, 409, 410


def call(gateway: Gateway, method: str, path: str, body: Any, query: Mapping[str, Any]) -> Plan[Answer]:
    """Make any call; it is repeated after a lost answer unless it is a POST or PATCH."""
    request = Request(method, path, query, is_repeatable=method not in {"POST", "PATCH"})
    return (yield from asked_document(gateway, request if body is None else with_body(request, body)))


def submit(
    gateway: Gateway, job: AnyJob, params: Mapping[str, Any] | None, key: str | None, options: Mapping[str, Any]
) -> Plan[Submitted[Any]]:
    """Submit a job, once."""
    request = posted("/jobs", submission(job, params, options), key=key or new_key())
    return (yield from _accepted(gateway, request, result_type_of(job)))


def submit_many(
    gateway: Gateway, jobs: Iterable[Contract[Any] | Mapping[str, Any]], key: str | None, options: Mapping[str, Any]
) -> Plan[Sequence[Submitted[Any]]]:
    """Submit jobs in batches, as large as the gateway takes them."""
    given = list(jobs)
    bodies = [_item(job, options) for job in given]
    types = [None if isinstance(job, Mapping) else result_type_of(job) for job in given]
    accepted: list[Submitted[Any]] = []
    key, size = key or new_key(), _BATCH_MAX
    while (begin := len(accepted)) < len(bodies):
        batch = bodies[begin : begin + size]
        request = posted("/jobs/batch", {"jobs": batch}, key=f"{key}-{begin}-{len(batch)}")
        try:
            answer = yield from asked_document(gateway, request)
        except ClientFailure as failure:
            if isinstance(failure, Refused):
                if failure.status == _TOO_LARGE and len(batch) > 1:  # by the size of its body
                    size = (len(batch) + 1) // 2
                    continue
                failure.errors = tuple(_moved(error, begin) for error in failure.errors)
            failure.accepted = accepted
            raise
        found = zip(answer.document["jobs"], types[begin:], strict=False)
        accepted += [_submitted(document, answer, result_type) for document, result_type in found]
    return accepted


def validate(
    gateway: Gateway, job: AnyJob, params: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Plan[Validated]:
    """Ask whether a job would be accepted."""
    request = posted("/jobs/validate", submission(job, params, options), repeatable=True)
    answer = yield from asked_document(gateway, request)
    would = answer.document
    return Validated(would["kind"], would["queue"], would["params"], would["steps"], answer.text)


def get(gateway: Gateway, job: Reference, result_type: ResultType, wait_s: float | None = None) -> Plan[Job[Any]]:
    """Read a job; with `wait_s`, when it has ended or after that many seconds."""
    timeout_s = READ_TIMEOUT_S + (wait_s or 0)
    answer = yield from asked_document(gateway, read(path_of(job), query={"wait_s": wait_s}, read_timeout_s=timeout_s))
    return Job(answer.document, answer.text, result_type)


def listed(gateway: Gateway, criteria: Mapping[str, Any]) -> Items:
    """Give each job that matches."""
    query = to_jsonable_python(criteria)  # times as text
    return paged(gateway, "/jobs", query, lambda document: JobSummary(document, ""))


def cancel(gateway: Gateway, job: Reference, wait_s: float | None) -> Plan[Cancellation]:
    """Cancel a job. If the answer is lost, whether it was cancelled is read from the job."""
    timeout_s = READ_TIMEOUT_S + (wait_s or 0)
    request = posted(f"{path_of(job)}/cancel", query={"wait_s": wait_s}, repeatable=True, read_timeout_s=timeout_s)
    try:
        answer = yield from asked_document(gateway, request)
    except Refused as refused:
        if refused.status != _CONFLICT or refused.sent == 1:
            raise
        found = yield from get(gateway, job, None)
        if found.state is not State.CANCELLED:
            raise
        started = found.document["started_at"] is not None
        return Cancellation(found.id, found.state, started, found.text)
    became = answer.document
    return Cancellation(became["id"], became["state"], became["has_started"], answer.text)


def rerun(
    gateway: Gateway, job: Reference, result_type: ResultType, key: str | None, changes: Mapping[str, Any]
) -> Plan[Submitted[Any]]:
    """Run a job again as a new one, once."""
    request = posted(f"{path_of(job)}/rerun", dict(changes) or None, key=key or new_key())
    return (yield from _accepted(gateway, request, result_type))


def delete(gateway: Gateway, path: str) -> Plan[None]:
    """Delete a job or schedule. That it is gone when the request comes a second time is what was asked for."""
    try:
        yield from asked_document(gateway, Request("DELETE", path, is_repeatable=True))
    except Refused as refused:
        if refused.status not in {404, _GONE} or refused.sent == 1:
            raise


def run_now(gateway: Gateway, path: str, key: str | None) -> Plan[Submitted[Any]]:
    """Submit a job of a schedule, once."""
    return (yield from _accepted(gateway, posted(f"{path}/run", key=key or new_key()), None))


def path_of(job: Reference) -> str:
    """Return the path of a job."""
    return f"/jobs/{segment(job if isinstance(job, str) else job.id)}"


def submission(job: AnyJob, params: Mapping[str, Any] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that submits a contract instance, or a kind with its parameters."""
    if isinstance(job, str):
        body: dict[str, Any] = {"kind": job, "params": params or {}}
    elif params is None:
        body = {"kind": job.spec.kind, "params": job.model_dump(mode="json", exclude_unset=True)}
    else:
        raise TypeError(f"{type(job).__name__} has its parameters; give params only with the name of a kind")
    return body | ({"options": dict(options)} if options else {})


def result_type_of(job: AnyJob) -> ResultType:
    """Return the type of the result; None if only the name of the kind is known."""
    return None if isinstance(job, str) else job.spec.result


def _item(job: Contract[Any] | Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(job, Mapping):
        return submission(job, None, options)
    own = {**options, **job.get("options", {})}
    return {**job, "options": own} if own else dict(job)


def _moved(error: FieldError, by: int) -> FieldError:
    """Return the error with the index of the job among all instead of in its batch."""
    parts = error.pointer.split("/", 3)
    if parts[:2] != ["", "jobs"]:
        return error
    parts[2] = str(int(parts[2]) + by)
    return replace(error, pointer="/".join(parts))


def _accepted(gateway: Gateway, request: Request, result_type: ResultType) -> Plan[Submitted[Any]]:
    answer = yield from asked_document(gateway, request)
    return _submitted(answer.document, answer, result_type)


def _submitted(document: Mapping[str, Any], answer: Answer, result_type: ResultType) -> Submitted[Any]:
    existed, replayed = (answer.headers.get(name) == "true" for name in ("job-existed", "idempotency-replayed"))
    return Submitted(document, answer.text, result_type, existed=existed, replayed=replayed)
