"""Test kinds of your own.

    from celeriac.testing import run_task

    ran = run_task(shout_text, ShoutText(text="hello"))
    assert ran.result.text == "HELLO"

`run_task` needs no broker. The fixture `celeriac_service` (`celeriac.testing.fixtures`) is a real service.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from shared.contract.artifacts import Artifact
from shared.contract.definition import Contract
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore
from worker.runtime.alone import Notes, alone
from worker.runtime.files import media_type_of
from worker.runtime.perform import perform
from worker.runtime.run import Run

ContractT = TypeVar("ContractT", bound=Contract[Any])
ResultT = TypeVar("ResultT", bound=BaseModel)

__all__ = ["Ran", "Submitted", "read_file", "run_task", "store_file"]


@dataclass(frozen=True)
class Submitted:
    """A job that a body submitted; it was not run."""

    kind: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Ran(Generic[ResultT]):
    """What a body did that ended well."""

    result: ResultT
    artifacts: Sequence[Artifact]
    logs: Sequence[Mapping[str, Any]]  # each with `level`, `message` and `fields`, as GET /jobs/{id}/logs has them
    progress: Sequence[Mapping[str, Any]]  # each with `current`, `total`, `unit` and `message`
    checkpoint: Any  # the last one, None if there was none
    submitted: Sequence[Submitted]


def run_task(
    body: Callable[[ContractT, Run], ResultT],
    job: ContractT,
    *,
    attempt: int = 1,
    last_checkpoint: Any = None,
    connections: Mapping[str, BaseModel] = MappingProxyType({}),
) -> Ran[ResultT]:
    """Run a body on `job` in this process, without a broker, and return what it did.

    Job and result travel as they do between gateway and worker, and files are stored for the rest of the process, so
    that a second task can be given what the first has published. `attempt` and `last_checkpoint` are those of a body
    that goes on after a loss; `connections` are what `run.connection` returns, by name. Raises what the body raises,
    and `TaskFailure` for a result that is not the contract's.
    """
    contract = type(job)
    notes = Notes(None if last_checkpoint is None else json.dumps(last_checkpoint))
    attempt = attempt if last_checkpoint is None else max(attempt, 2)  # a first attempt has no checkpoint before it
    with alone(contract, uuid7(), _store(), notes, attempt=attempt, connections=connections) as run:
        params = job.model_dump(mode="json", exclude_unset=True)
        result = contract.spec.result.model_validate_json(perform(contract, body, run, params, ()))
    return Ran(
        result=result,  # type: ignore[arg-type]  # `perform` has checked that the body returned one of its contract's
        artifacts=run.artifacts,
        logs=[json.loads(line) for line in notes.lines],
        progress=[json.loads(report) for report in notes.reports],
        checkpoint=None if notes.latest is None else json.loads(notes.latest),
        submitted=[Submitted(child.kind, json.loads(child.params)) for child in notes.children],
    )


def store_file(content: bytes | str, name: str) -> Artifact:
    """Store a file for the rest of the process, and return its reference: `.uri` is what a job names it by."""
    folder = Path(tempfile.mkdtemp())
    try:
        local = folder / "content"
        local.write_bytes(content.encode() if isinstance(content, str) else content)
        return _store().put(
            local, file_owner=uuid7(), attempt=0, name=name, role="file", media_type=media_type_of(name)
        )
    finally:
        shutil.rmtree(folder)


def read_file(uri: str) -> bytes:
    """Return the content of a file that a body has published, or that `store_file` has stored."""
    with _store().open(uri) as stream:
        return stream.read()


@cache
def _store() -> ArtifactStore:
    folder = tempfile.mkdtemp(prefix="celeriac-testing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return ArtifactStore(folder)
