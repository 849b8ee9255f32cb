"""The job as its task body sees it: identity, scratch folder, progress, log and artifacts."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from shared.contract.artifacts import Artifact, Role
from shared.errors import CeleriacError, TaskFailure
from shared.ledger.client import Ledger
from shared.storage import ArtifactStore
from shared.texts import finite, json_text, plain, redact_field, said

_REPORT_EVERY_S = 0.5
_LOG_LINES_BUFFERED = 50
_LOG_LINES_PER_RUN = 1_000
_UNIT_LENGTH = 100
_MOST_ARTIFACTS = 1_000
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}(; ?[\w-]+=[\w.-]+)*", re.ASCII)

_current: ContextVar[Run | None] = ContextVar("current_run", default=None)


class CancelRequested(CeleriacError):
    """The job must stop. Task bodies do not catch this."""


@dataclass
class Run:
    """One attempt at a job: its identity, its scratch folder, its progress, log and artifacts.

    `progress`, `log` and `publish` raise `ClaimLost` if another worker has claimed the job and `CancelRequested` if it
    was cancelled: a body does not catch them, but cleans up in `finally`.
    """

    job_id: str
    kind: str
    attempt: int
    token: str
    idempotency_key: str  # lets a retry recognise side effects that are already done
    scratch: Path  # folder of this attempt, removed at its end
    store: ArtifactStore
    ledger: Ledger
    _artifacts: list[Artifact] = field(default_factory=list)
    _progress: dict[str, Any] | None = None
    _lines: list[str] = field(default_factory=list)
    _line_count: int = 0
    _reported_at: float = 0.0

    @property
    def artifacts(self) -> Sequence[Artifact]:
        """The files that this attempt has published, in order."""
        return tuple(self._artifacts)

    @property
    def redis(self) -> redis.Redis:
        """Redis for state that tasks share, such as circuit breakers."""
        return self.ledger.client

    def progress(self, current: float, total: float | None = None, *, unit: str = "rows", message: str = "") -> None:
        """Report progress. Cheap to call often: at most two reports per second leave the process.

        What is not a finite number counts as 0 in `current`, and as unknown in `total`.
        """
        self._progress = {
            "current": finite(current) or 0,
            "total": finite(total),
            "unit": said(unit, _UNIT_LENGTH),
            "message": said(message),
        }
        if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
            self.report()

    def log(self, message: str, /, **fields: Any) -> None:
        """Add a line to the job's log. Its texts are cut, and what looks like a credential is hidden."""
        self.log_line("info", message, fields)

    def log_line(self, level: str, message: str, fields: dict[str, Any] | None = None) -> None:
        """Add a line with its level; lines after the first thousand of a run are dropped, with one final notice."""
        self._line_count += 1
        if self._line_count > _LOG_LINES_PER_RUN:
            if self._line_count > _LOG_LINES_PER_RUN + 1:
                return
            level, message, fields = (
                "warning",
                f"more than {_LOG_LINES_PER_RUN} log lines: further lines are dropped",
                {},
            )
        line = {
            "at": datetime.now(UTC).isoformat(),
            "level": said(level, _UNIT_LENGTH),
            "message": said(message),
            "fields": plain({name: redact_field(name, value) for name, value in (fields or {}).items()}),
        }
        self._lines.append(json_text(line))
        if len(self._lines) >= _LOG_LINES_BUFFERED:
            self.report()

    def publish(self, local: Path, *, name: str, role: Role, media_type: str) -> Artifact:
        """Move the finished file `local` into the store and return its reference."""
        self._refuse_second(name)
        _refuse_unfit(local, media_type)
        self.report()  # raises if this attempt has lost its claim: then a large file need not be copied
        artifact = self.store.put(
            local, file_owner=self.job_id, attempt=self.attempt, name=name, role=role, media_type=media_type
        )
        self._artifacts.append(artifact)
        return artifact

    def _refuse_second(self, name: str) -> None:
        if any(artifact.name == name for artifact in self._artifacts):
            raise TaskFailure(
                "artifact_exists",
                f"This run has already published a file named {name}.",
                remedy="Fix the task: give each file a name of its own.",
            )
        if len(self._artifacts) == _MOST_ARTIFACTS:
            raise TaskFailure(
                "too_many_artifacts",
                f"This run has published {_MOST_ARTIFACTS} files; it may publish no more.",
                remedy="Fix the task: put the files into a ZIP, and publish that.",
            )

    def report(self) -> None:
        """Write pending progress and log lines to the ledger now. Raises `ClaimLost` or `CancelRequested`."""
        self._reported_at = time.monotonic()
        progress = json_text(self._progress) if self._progress is not None else None
        lines, self._lines, self._progress = self._lines, [], None
        if self.ledger.progress(self.job_id, token=self.token, progress=progress, logs=lines):
            raise CancelRequested(f"{self.job_id} is cancelled")

    def report_pending(self) -> None:
        """Write pending progress and log lines, if there are any."""
        if self._progress is not None or self._lines:
            self.report()


def _refuse_unfit(local: Path, media_type: str) -> None:
    if not local.is_file():  # a pipe would never end, and a folder has no content
        raise TaskFailure(
            "not_a_file",
            f"{local} is not a file, so it cannot be published.",
            remedy="Fix the task: write the file first; put a folder into a ZIP.",
        )
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise TaskFailure(
            "invalid_media_type",
            f"{media_type!r} is not a media type.",
            remedy="Fix the task: give a type as in text/plain or text/html; charset=utf-8.",
        )


@contextmanager
def entered(run: Run) -> Iterator[Run]:
    """Copy what this process logs to the job log of `run`."""
    reset = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(reset)


class JobLogHandler(logging.Handler):
    """Copies log records to the log of the running job."""

    def emit(self, record: logging.LogRecord) -> None:
        """Copy `record` if a job is running in this process, except Celery's own lines about the job."""
        run = _current.get()
        if run is None or record.name.startswith(("celery.", "kombu", "redis", "httpx", "httpcore")):
            return
        try:
            run.log_line(record.levelname.lower(), record.getMessage())
        except CeleriacError:
            raise  # the body must stop
        except Exception:  # noqa: BLE001 - logging's own rule: a handler reports and never breaks its caller
            self.handleError(record)
