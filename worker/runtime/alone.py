"""Run a body without broker and ledger: what it would tell them is kept in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from shared.contract.definition import AnyContract
from shared.ledger.client import Ledger
from shared.ledger.records import Entry
from shared.storage import ArtifactStore
from worker.runtime.bodies.printing import printed_to
from worker.runtime.bodies.surroundings import restored
from worker.runtime.run import JobLogHandler, Run, entered
from worker.runtime.scratch import attempt_folder


class Notes(Ledger):
    """Takes what a run tells the ledger: JSON texts, in order."""

    def __init__(self, checkpoint: str | None = None) -> None:
        """Give the run this checkpoint of an earlier attempt."""
        self.reports: list[str] = []
        self.lines: list[str] = []
        self.children: list[Entry] = []
        self.latest = checkpoint

    def progress(
        self,
        job_id: str,  # noqa: ARG002 - it is always the same
        *,
        token: str,  # noqa: ARG002 - nobody else can have the claim
        progress: str | None,
        logs: Sequence[str] = (),
        checkpoint: str | None = None,
    ) -> bool:
        """Keep them. The job never has to stop."""
        self.reports += [] if progress is None else [progress]
        self.lines += logs
        self.latest = checkpoint or self.latest
        return False

    def checkpoint(self, job_id: str) -> str | None:  # noqa: ARG002 - it is always the same
        return self.latest

    def created_at_ms(self, job_id: str) -> int:  # noqa: ARG002 - it is always the same
        return 1

    def submit(self, job_id: str, *, token: str, child: Entry) -> bool | None:  # noqa: ARG002 - they are always the same
        """Keep the child; it is not run. One that was submitted before is the same."""
        if all(known.id != child.id for known in self.children):
            self.children.append(child)
        return True

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"there is no {name} without a ledger. Test this body with a real service: the fixture celeriac_service."
        )


class _Prompt(Run):
    """A run that passes on each report of progress at once."""

    def progress(self, current: float, total: float | None = None, *, unit: str = "rows", message: str = "") -> None:
        super().progress(current, total, unit=unit, message=message)
        self.report_pending()


@contextmanager
def alone(
    contract: AnyContract,
    job_id: str,
    store: ArtifactStore,
    notes: Notes,
    *,
    attempt: int = 1,
    connections: Mapping[str, BaseModel] = MappingProxyType({}),
) -> Iterator[Run]:
    """Yield a run for a body of `contract`.

    Its files go to `store`, what it tells the ledger to `notes`; of its connections, these are given.
    """
    with attempt_folder(job_id) as scratch:
        scratch.mkdir(mode=0o700)
        run = _Prompt(
            job_id=job_id,
            kind=contract.spec.kind,
            attempt=attempt,
            token="1",  # noqa: S106 - of a claim that nobody else can have
            idempotency_key=job_id,
            scratch=scratch,
            store=store,
            ledger=notes,
            _connections=connections,
        )
        try:
            with entered(run), restored(), printed_to(run.log_line):
                _log_to_the_job()
                yield run
        finally:
            run.report_pending()


def _log_to_the_job() -> None:
    """Copy log records from INFO on to the job's log, as in a worker; `restored` undoes it."""
    root = logging.getLogger()
    root.addHandler(JobLogHandler(level=logging.INFO))
    root.setLevel(min(root.level, logging.INFO))
