"""The job as its task body sees it: identity, scratch folder, progress, log and artifacts."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import redis
from pydantic import BaseModel

from shared.contract.artifacts import Artifact, Dataset, DatasetRole, Role, file_owner_of
from shared.contract.definition import Contract
from shared.errors import CeleriacError
from shared.ledger.client import Ledger
from shared.storage import ArtifactStore
from shared.texts import finite, json_text, plain, redact_field, said
from worker.runtime.bodies.connections import SettingsT, configured, own_connection
from worker.runtime.bodies.pools import pool_of
from worker.runtime.checkpoints import written
from worker.runtime.children import child_of, too_many_children
from worker.runtime.files import PARQUET, described, media_type_of, refuse_unfit

_REPORT_EVERY_S = 0.5
_LOG_LINES_BUFFERED = 50
_LOG_LINES_PER_RUN = 1_000
_UNIT_LENGTH = 100

_current: ContextVar[Run | None] = ContextVar("current_run", default=None)


class CancelRequested(CeleriacError):
    """The job must stop. Task bodies do not catch this."""


@dataclass
class Run:
    """One attempt at a job: its identity, its scratch folder, its progress, log, checkpoint and artifacts.

    `progress`, `log`, `publish` and `checkpoint` raise `ClaimLost` if another worker has claimed the job and
    `CancelRequested` if it was cancelled: a body does not catch them, but cleans up in `finally`.
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
    _connections: Mapping[str, BaseModel] = field(default_factory=dict, repr=False)  # those that a test gives
    _progress: dict[str, Any] | None = None
    _lines: list[str] = field(default_factory=list)
    _line_count: int = 0
    _reported_at: float = 0.0
    _checkpoint: str | None = None
    _stored_checkpoint: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def _own(self, name: str) -> str:
        """Return the name of a file, which is unique in the job."""
        return name

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

        Anything but a finite number counts as 0 in `current`, and as unknown in `total`.
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
        with self._lock:
            self._lines.append(json_text(line))
        if len(self._lines) >= _LOG_LINES_BUFFERED:
            self.report()

    def publish(
        self,
        local: Path | str,
        *,
        name: str | None = None,
        role: Role = "file",
        media_type: str | None = None,
        copy: bool = False,
    ) -> Artifact:
        """Move the finished file `local` into the store and return its reference; with `copy`, leave it where it is.

        By default `name` is that of the file, and `media_type` follows from the name; `role` is one of the service's
        own, or what `role()` returned. Raises `TaskFailure` for a second file of the same name, and for anything that
        is not a file.
        """
        local = Path(local)
        name = self._own(local.name if name is None else name)
        media_type = media_type or media_type_of(name)
        refuse_unfit(local, name, role, media_type, self._artifacts)
        self.report()  # raises if this attempt has lost its claim: then a large file need not be copied
        if copy or local.is_symlink():  # moving a link would store the link
            local = Path(shutil.copyfile(local, self.scratch / f"{secrets.token_hex(8)}-copy"))
        artifact = self.store.put(
            local,
            file_owner=file_owner_of(self.job_id),
            attempt=self.attempt,
            name=name,
            role=str(role),
            media_type=media_type,
        )
        self._artifacts.append(artifact)
        return artifact

    def publish_dataset(
        self, local: Path | str, *, name: str | None = None, role: DatasetRole = "dataset", copy: bool = False
    ) -> Dataset:
        """Move a Parquet file into the store and return its reference with its rows and columns.

        Raises `TaskFailure` (``not_a_dataset``) for any other file.
        """
        row_count, columns = described(Path(local))
        artifact = self.publish(local, name=name, role=role, media_type=PARQUET, copy=copy)
        return Dataset(**artifact.model_dump(), row_count=row_count, columns=columns)

    def open(self, uri: str) -> IO[bytes]:
        """Open a stored file for reading. Raises `TaskFailure` (``artifact_missing``) if it does not exist."""
        return self.store.open(uri)

    def local(self, uri: str) -> Path:
        """Return a local file with the content of a stored one, to be read only, until the end of this attempt.

        Raises `TaskFailure` (``artifact_missing``) if it does not exist.
        """
        return self.store.fetched(uri, self.scratch)

    def connection(self, name: str, settings: type[SettingsT]) -> SettingsT:
        """Return the settings of a connection of your own kind, with the secrets of this worker's environment.

        `settings` is the class that is declared for its kind. Raises `TaskFailure` (``unknown_connection``,
        ``wrong_connection``, ``connection_misconfigured``).
        """
        given = self._connections.get(name)
        return given if isinstance(given, settings) else own_connection(name, settings, configured())

    def processes(self, count: int) -> AbstractContextManager[ProcessPoolExecutor]:
        """Return an executor with `count` processes, for a `with` block; they end with it.

        Other executors and pools do not work here, because Celery forbids its children to start processes. What the
        processes get is pickled, so a function must be defined in a module.
        """
        return pool_of(count)

    def submit(self, job: Contract[Any], *, name: str, **options: Any) -> str:
        """Submit a job as a child of this one, and return its id; `options` are those of `SubmissionOptions`.

        It is accepted once for each `name`: a later attempt gets the id of the same child. It is cancelled if this job
        ends without success. Raises `TaskFailure` (``too_many_children``).
        """
        child = child_of(self.job_id, self.ledger.created_at_ms(self.job_id), job, name, options)
        had_room = self.ledger.submit(self.job_id, token=self.token, child=child)
        if had_room is None:
            raise CancelRequested(f"{self.job_id} is cancelled")
        if not had_room:
            raise too_many_children()
        return child.id

    def checkpoint(self, data: Any) -> None:
        """Store how far this job is, without delay: JSON values of at most 64 KiB.

        The next attempt at the job finds it in `last_checkpoint`, even if this worker is lost. It replaces the previous
        checkpoint, and is deleted at the end of the job.
        """
        self._checkpoint = written(data)
        self.report()

    @property
    def last_checkpoint(self) -> Any:
        """The latest checkpoint of this attempt or of an earlier one; None if there is none."""
        if self._checkpoint is None and self.attempt > 1:
            self._checkpoint = self.ledger.checkpoint(self.job_id)
            self._stored_checkpoint = self._checkpoint
        return None if self._checkpoint is None else json.loads(self._checkpoint)

    def report(self) -> None:
        """Write pending progress and log lines to the ledger now. Raises `ClaimLost` or `CancelRequested`."""
        self._reported_at = time.monotonic()
        with self._lock:  # a body may have threads that log
            lines, self._lines = self._lines, []
            progress, self._progress = self._progress, None
            checkpoint = self._checkpoint if self._checkpoint != self._stored_checkpoint else None
        must_stop = self.ledger.progress(
            self.job_id,
            token=self.token,
            progress=None if progress is None else json_text(progress),
            logs=lines,
            checkpoint=checkpoint,
        )
        self._stored_checkpoint = checkpoint or self._stored_checkpoint
        if must_stop:
            raise CancelRequested(f"{self.job_id} is cancelled")

    def report_pending(self) -> None:
        """Write pending progress and log lines, if there are any."""
        if self._progress is not None or self._lines:
            self.report()


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
