"""What a task body may use of the job it runs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from shared.contract.artifacts import Artifact, ArtifactStore, Role
from shared.errors import CeleriacError, redact, redact_field
from shared.ledger.client import Ledger

_REPORT_EVERY_S = 0.5
_LOG_LINES_BUFFERED = 50
_LOG_LINES_PER_RUN = 1_000
_LOG_LINE_LENGTH = 2_000

_current: ContextVar[Run | None] = ContextVar("current_run", default=None)


class CancelRequested(CeleriacError):
    """The job is to stop. Task bodies let it pass."""


@dataclass
class Run:
    """One attempt at a job: its identity, its scratch folder, and what it may tell the outside.

    `progress`, `log` and `publish` raise `ClaimLost` when the job has another owner by now and `CancelRequested`
    when it was cancelled: a body lets both pass and cleans up after itself.
    """

    job_id: str
    kind: str
    attempt: int
    token: str
    idempotency_key: str  # under which a rerun recognises side effects already made
    scratch: Path  # folder of this attempt, removed afterwards
    store: ArtifactStore
    ledger: Ledger
    artifacts: list[Artifact] = field(default_factory=list)
    _progress: dict[str, Any] | None = None
    _lines: list[str] = field(default_factory=list)
    _line_count: int = 0
    _reported_at: float = 0.0

    @property
    def redis(self) -> redis.Redis:
        """Redis for state that tasks share, such as circuit breakers."""
        return self.ledger.client

    def progress(self, current: float, total: float | None = None, *, unit: str = "rows", message: str = "") -> None:
        """Say how far the job is. Cheap to call often: at most two reports a second leave the process."""
        self._progress = {"current": current, "total": total, "unit": unit, "message": message}
        if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
            self.report()

    def log(self, message: str, **fields: Any) -> None:
        """Add a line to the job's own log."""
        self.log_line("info", message, fields)

    def log_line(self, level: str, message: str, fields: dict[str, Any] | None = None) -> None:
        """Add a line with its level; lines past the first thousand of a run are dropped, and that is said once."""
        self._line_count += 1
        if self._line_count > _LOG_LINES_PER_RUN:
            if self._line_count > _LOG_LINES_PER_RUN + 1:
                return
            message, fields = f"more than {_LOG_LINES_PER_RUN} log lines: the rest is dropped", {}
        line = {
            "at": datetime.now(UTC).isoformat(),
            "level": level,
            "message": redact(message)[:_LOG_LINE_LENGTH],
            "fields": {name: redact_field(name, value)[:_LOG_LINE_LENGTH] for name, value in (fields or {}).items()},
        }
        self._lines.append(json.dumps(line))
        if len(self._lines) >= _LOG_LINES_BUFFERED:
            self.report()

    def publish(self, local: Path, *, name: str, role: Role, media_type: str) -> Artifact:
        """Move the finished file `local` into the store and return its reference."""
        self.report()  # do not copy a large file for a job that is no longer ours
        artifact = self.store.put(
            local, file_owner=self.job_id, attempt=self.attempt, name=name, role=role, media_type=media_type
        )
        self.artifacts.append(artifact)
        return artifact

    def report(self) -> None:
        """Write what is pending to the ledger now. Raises `ClaimLost` or `CancelRequested`."""
        self._reported_at = time.monotonic()
        progress = json.dumps(self._progress) if self._progress is not None else None
        lines, self._lines, self._progress = self._lines, [], None
        if self.ledger.progress(self.job_id, token=self.token, progress=progress, logs=lines):
            raise CancelRequested(f"{self.job_id} is cancelled")

    def report_pending(self) -> None:
        """Write what is pending, if anything is."""
        if self._progress is not None or self._lines:
            self.report()


@contextmanager
def entered(run: Run) -> Iterator[Run]:
    """Make `run` the one whose job log takes what this process logs."""
    reset = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(reset)


class JobLogHandler(logging.Handler):
    """Copies log records made while a job runs into the job's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take `record` if a job is running here; Celery's own lines about the job are not part of it."""
        run = _current.get()
        if run is None or record.name.startswith(("celery.", "kombu", "redis", "httpx", "httpcore")):
            return
        try:
            run.log_line(record.levelname.lower(), record.getMessage())
        except CeleriacError:
            raise  # the body must hear that it is to stop
        except Exception:  # noqa: BLE001 - logging's own rule: a handler reports and never breaks its caller
            self.handleError(record)
