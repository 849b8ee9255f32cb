"""Logs of a worker: one JSON object per line, or readable lines on a terminal; each has its job's id."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from celery import current_task

from shared.texts import names_secret, redact_field
from worker.runtime.run import JobLogHandler


def _add_job(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    request = getattr(current_task, "request", None)
    if request is not None and request.id:
        event["job_id"] = request.id
        event["kind"] = current_task.name
    return event


def _redact(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        name: redact_field(name, value) if isinstance(value, str) or names_secret(name) else value
        for name, value in event.items()
    }


def configure_logging(loglevel: int | str = logging.INFO, **_: Any) -> None:
    """Send all log records through structlog to standard error, and a job's records also to the job's log."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_job,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler, JobLogHandler(level=logging.INFO)]
    root.setLevel(loglevel)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs complete URLs, which can carry secrets
