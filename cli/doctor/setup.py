"""The set-up to look at: that of this environment or, without a broker in it, that of a running `celeriac up`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from api.settings import GatewaySettings
from cli.doctor.findings import Finding, fail, ok, warn
from cli.local.folder import chooses_a_broker, connections_of, running_in
from shared.contract.spelling import nearest
from shared.environment import read, variables_of
from shared.errors import DefinitionError
from shared.rows.packages import refuse_missing_packages
from worker.settings import WorkerSettings

_OTHERS = (  # read by programs without a class of settings
    "CELERIAC_API_KEY",
    "CELERIAC_API_KEY_FILE",
    "CELERIAC_CONTRACTS",
    "CELERIAC_DATA",
    "CELERIAC_PORT",
    "CELERIAC_QUEUES",
    "CELERIAC_TASKS",
    "CELERIAC_URL",
    "WORKER_FAMILIES",
)
_LIKE = 0.8  # from here on, a name is another one, mistyped


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of gateway and workers, and where the gateway is."""

    settings: GatewaySettings
    url: str
    origin: str  # of the settings, in words


def find_setup(url: str | None, folder: Path) -> Setup:
    """Return the set-up. Raises `DefinitionError` for settings with which no program would start."""
    running = None if chooses_a_broker() else running_in(folder)
    given: dict[str, Any] = {}
    if running and running["broker_url"]:
        given = {
            "broker_url": running["broker_url"],
            "store_url": os.environ.get("CELERIAC_STORE_URL", str((folder / "artifacts").resolve())),
            "connections_file": os.environ.get("CELERIAC_CONNECTIONS_FILE", connections_of(folder)),
        }
    settings = read(GatewaySettings, **given)
    read(WorkerSettings)
    refuse_missing_packages(settings.database_url)
    gateway = url or os.environ.get("CELERIAC_URL") or (running["url"] if running else "http://127.0.0.1:8000")
    return Setup(settings, gateway, f"`celeriac up` in {folder}" if given else "this environment")


def of_settings(setup: Setup) -> Iterator[Finding]:
    """Yield what the settings say, misspelt ones, and those that contradict each other."""
    found = [*_misspelt(), *_contradictions(setup.settings)]
    if not chooses_a_broker() and setup.origin == "this environment":
        yield warn(
            "settings",
            f"CELERY_BROKER_URL is not set, and no `celeriac up` runs here: {setup.settings.broker_url} is looked at.",
            "Set it as the gateway has it, or name the folder of `celeriac up` with --data.",
        )
    elif not found:
        yield ok("settings", f"those of {setup.origin} are valid")
    yield from found


def wrong_settings(refused: DefinitionError) -> Iterator[Finding]:
    """Yield a finding for each line of a refusal."""
    for line in str(refused).splitlines():
        yield fail("settings", line, "Correct it: docs/settings.md lists all settings.")


def _misspelt() -> Iterator[Finding]:
    of_classes = {name for each in (GatewaySettings, WorkerSettings) for name in _variables(each)}
    known = of_classes | set(_OTHERS)
    for name in sorted(os.environ):
        if not name.startswith(("CELERIAC_", "CELERY_", "WORKER_")) or name.upper() in known:
            continue
        if like := nearest(name, known, cutoff=_LIKE):
            yield warn("settings", f"{name} is not a setting, so it is ignored.", f"Did you mean {like[0]}?")


def _variables(settings: type[BaseSettings]) -> Iterator[str]:
    for field in settings.model_fields:
        yield from variables_of(settings, field)


def _contradictions(settings: GatewaySettings) -> Iterator[Finding]:
    if settings.quorum_queues and not settings.broker_url.startswith("amqp"):
        yield warn(
            "settings",
            "CELERIAC_QUORUM_QUEUES is set, and the broker is not RabbitMQ.",
            "Unset it, or fix CELERY_BROKER_URL.",
        )
    backend = settings.result_backend
    if backend.startswith("redis") and settings.ledger_url != backend:
        yield warn(
            "settings",
            "CELERY_RESULT_BACKEND and CELERIAC_LEDGER_URL name two Redis; the second holds ledger and results.",
            "Unset one of them.",
        )
    if settings.visibility_timeout_s <= settings.lease_s:
        yield warn(
            "settings",
            f"CELERIAC_VISIBILITY_TIMEOUT_S ({settings.visibility_timeout_s:g}) is not longer than CELERIAC_LEASE_S "
            f"({settings.lease_s:g}), so the broker delivers the messages of running jobs again and again.",
            "Leave it at 3600.",
        )
    if settings.retention_s < settings.idempotency_s:
        yield warn(
            "settings",
            f"CELERIAC_RETENTION_S ({settings.retention_s:g}) is shorter than CELERIAC_IDEMPOTENCY_S "
            f"({settings.idempotency_s:g}): a repeated request would be answered with a job that is forgotten.",
            "Shorten the second.",
        )
    if settings.database_url and settings.rows_retention_s < settings.retention_s:
        yield warn(
            "settings",
            "CELERIAC_ROWS_RETENTION_S is shorter than CELERIAC_RETENTION_S: rows of jobs go before the jobs do.",
            "Lengthen the first.",
        )
    if settings.max_body_bytes > settings.max_upload_bytes:
        yield warn(
            "settings",
            "CELERIAC_MAX_BODY_BYTES is larger than CELERIAC_MAX_UPLOAD_BYTES: large data belongs into uploads.",
            "Lower the first.",
        )
