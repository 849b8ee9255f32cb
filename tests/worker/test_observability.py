"""The log of a worker: one JSON object a line, without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from worker.observability import configure_logging


@contextmanager
def logging_as_a_worker() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logging(logging.INFO)
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level


def test_fields_of_structlog_are_hidden_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A key and a token are secrets whatever their type; a key to sort by is not."""
    own = structlog.wrap_logger(
        logging.getLogger("acme"),
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    with logging_as_a_worker():
        own.info("signing", key=b"k3y", api_key="k3y", sort_key="name", url="https://me:k3y@example.com")
    written = json.loads(capsys.readouterr().err)
    assert {name: written[name] for name in ("event", "key", "api_key", "sort_key", "url")} == {
        "event": "signing",
        "key": "***",
        "api_key": "***",
        "sort_key": "name",
        "url": "https://example.com",
    }
