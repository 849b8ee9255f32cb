"""Turn a delivery's arguments into a result as JSON text: check the parameters, run the body, check the result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from shared.contract.definition import AnyContract, Contract, Limits
from shared.contract.versions import NotUpgraded, upgraded
from shared.errors import TaskFailure, TimeLimitReached, as_raised
from shared.texts import finite, json_text
from shared.workflows.feeding import MAPPED, feed
from worker.runtime import deadlines
from worker.runtime.run import Run

MAX_RESULT_BYTES = 256 * 1024
MAX_MAPPED_BYTES = 16 * MAX_RESULT_BYTES

Body = Callable[[Any, Run], BaseModel]
Upstream = Sequence[Mapping[str, Any] | None]


class ParametersRefused(TaskFailure):
    """The contract of this worker refuses the parameters; no body has begun."""


def _in_this_form(contract: AnyContract, params: Mapping[str, Any], version: int | None) -> dict[str, Any]:
    """Return parameters that were accepted under `version` as `upgraded` does. Raises `ParametersRefused`."""
    try:
        return upgraded(contract, params, version)
    except NotUpgraded as refused:
        raise ParametersRefused("other_version", str(refused), remedy=refused.remedy) from refused


def perform(
    contract: AnyContract,
    body: Body,
    run: Run,
    kwargs: dict[str, Any],
    upstream: Upstream,
    *,
    version: int | None = None,
) -> str:
    """Run `body` once with parameters that were accepted under `version`, and the results of the steps before it."""
    params = _in_this_form(contract, kwargs, version)
    try:
        params = feed(contract, params, upstream) if upstream else params
    except ValueError as mismatch:
        raise TaskFailure(
            "invalid_parameters",
            str(mismatch),
            remedy="Correct the order of the steps before it, or fix those that failed.",
        ) from None
    job = checked(contract, params, version=version)
    run.idempotency_key = job.idempotency_key(run.job_id)
    return _bounded(_result(contract, body(job, run)), MAX_RESULT_BYTES)


def perform_each(
    contract: AnyContract,
    body: Body,
    run: Run,
    items: Sequence[dict[str, Any]],
    limits: Limits | None = None,
    *,
    version: int | None = None,
) -> str:
    """Run `body` on each item in order, each within `limits`; the first failure ends the run and names the item."""
    results = []
    given = [_in_this_form(contract, params, version) for params in items]
    jobs = [checked(contract, params, index, version=version) for index, params in enumerate(given)]
    for index, job in enumerate(jobs):
        item = _ItemRun(run, index, len(items))
        try:
            item.idempotency_key = job.idempotency_key(f"{run.job_id}:{index}")
            with _limited(item, limits, index):
                result = body(job, item)
            results.append(_result(contract, result))
        except TimeLimitReached:
            raise  # it names the item
        except TaskFailure as raised:
            failure = as_raised(raised)
            failure.message = f"item {index}: {failure.message}"
            failure.details = {**failure.details, "item": index}
            raise failure from raised
        run.progress(index + 1, len(items), unit="items")
    return _bounded(f'{{"{MAPPED}": [{", ".join(results)}]}}', MAX_MAPPED_BYTES)


@contextmanager
def _limited(run: Run, limits: Limits | None, index: int) -> Iterator[None]:
    """Let the body of an item run only within `limits`.

    Raises `TimeLimitReached` if it was interrupted after the soft limit. If it does not end within the hard limit, the
    warden kills this process: see `worker.runtime.deadlines`.
    """
    if limits is None:
        yield
        return
    began_at = time.monotonic()
    item = deadlines.Item(index, began_at + limits.soft_s, began_at + limits.hard_s, limits.hard_s)
    try:
        with deadlines.entered(item):
            yield
    except SoftTimeLimitExceeded:
        if time.monotonic() < item.interrupt_at:
            raise  # it is the limit of the whole job, or the job is to stop
        run.report()  # raises if it is to stop
        raise TimeLimitReached(limits.hard_s, interrupted_after_s=limits.soft_s, item=index) from None


class _ItemRun(Run):
    """One item of a map: its progress is a part of the step's, and its file names contain the item's number."""

    def __init__(self, whole: Run, index: int, count: int) -> None:
        scratch = whole.scratch / f"item-{index}"
        scratch.mkdir()
        super().__init__(
            whole.job_id,
            whole.kind,
            whole.attempt,
            whole.token,
            "",
            scratch,
            whole.store,
            whole.ledger,
            whole._artifacts,  # noqa: SLF001 - one list: a name is unique in the whole
            whole._connections,  # noqa: SLF001 - those of the whole
        )
        self._whole, self._index, self._count = whole, index, count

    def progress(self, current: float, total: float | None = None, *, unit: str = "rows", message: str = "") -> None:
        known, whole = finite(current) or 0, finite(total)
        done = min(known / whole, 1.0) if whole else 0.0
        text = f"item {self._index}: {known:,.0f} {unit} {message}".rstrip()
        self._whole.progress(self._index + done, self._count, unit="items", message=text)

    def log_line(self, level: str, message: str, fields: dict[str, Any] | None = None) -> None:
        """Add a log line that names the item."""
        self._whole.log_line(level, message, {**(fields or {}), "item": self._index})

    def _own(self, name: str) -> str:
        """Return the name of a file with the item's number."""
        return f"{self._index:04d}-{name}"

    def submit(self, job: Contract[Any], *, name: str, **options: Any) -> str:
        """Submit a child of the step, under a name that contains the item's number."""
        return super().submit(job, name=f"{self._index}:{name}", **options)

    def checkpoint(self, data: Any) -> None:
        """Store how far this item is."""
        self._whole.checkpoint({"item": self._index, "data": data})

    @property
    def last_checkpoint(self) -> Any:
        """The latest checkpoint of this item."""
        last = self._whole.last_checkpoint
        return last["data"] if last is not None and last["item"] == self._index else None

    def report(self) -> None:
        """Write the pending progress and log lines of the step."""
        self._whole.report()


def checked(
    contract: AnyContract, params: dict[str, Any], item: int | None = None, *, version: int | None = None
) -> Contract[Any]:
    """Return the job with these parameters, accepted under `version`. Raises `ParametersRefused`."""
    try:
        return contract.model_validate_json(json.dumps(params))
    except ValidationError as invalid:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in invalid.errors(include_url=False, include_input=False)
        )
        where, details = ("", {}) if item is None else (f"item {item}: ", {"item": item})
        kind, own = contract.spec.kind, contract.spec.version
        remedy = "Correct them; if the gateway accepted them, deploy its version of the contract on the workers."
        if version is not None and version < own:
            where = f"{where}accepted under version {version}, in version {own} "
            remedy = f"Let upgrade() of {kind} give them this form, deploy it on the workers, then rerun the job."
        raise ParametersRefused(
            "invalid_parameters", f"{where}{kind} got invalid parameters: {problems}", remedy=remedy, **details
        ) from None


def _result(contract: AnyContract, result: BaseModel) -> str:
    expected = contract.spec.result
    if not isinstance(result, expected):
        raise TaskFailure(
            "invalid_result",
            f"{contract.spec.kind} returned {type(result).__name__}, not {expected.__name__}.",
            remedy="Fix the task: it must return the result type of its contract.",
        )
    checked = expected.model_validate(result.model_dump())
    try:
        return checked.model_dump_json()
    except PydanticSerializationError:  # half a surrogate pair in a text, which only the slower way repairs
        return json_text(checked.model_dump(mode="json"))


def _bounded(text: str, most_bytes: int) -> str:
    size_bytes = len(text.encode())
    if size_bytes > most_bytes:
        raise TaskFailure(
            "result_too_large",
            f"The result has {size_bytes} bytes; the maximum is {most_bytes}.",
            remedy="Fix the task: write the data to a file, publish it as an artifact, and return the reference.",
        )
    return text
