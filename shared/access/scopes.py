"""Scopes: what a key allows. Presets: the scopes of usual roles."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal


class Scope(StrEnum):
    """One thing that a key may allow."""

    JOBS_READ = "jobs:read"
    JOBS_SUBMIT = "jobs:submit"
    JOBS_CANCEL = "jobs:cancel"
    JOBS_RERUN = "jobs:rerun"
    JOBS_DELETE = "jobs:delete"
    ARTIFACTS_READ = "artifacts:read"
    ARTIFACTS_WRITE = "artifacts:write"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    QUEUES_READ = "queues:read"
    QUEUES_CONTROL = "queues:control"
    WORKERS_READ = "workers:read"
    METRICS_READ = "metrics:read"
    KEYS_ADMIN = "keys:admin"
    AUDIT_READ = "audit:read"
    TENANTS_ADMIN = "tenants:admin"


ALL = frozenset(Scope)
Preset = Literal["viewer", "submitter", "operator", "admin"]
_VIEWER = frozenset(
    {Scope.JOBS_READ, Scope.ARTIFACTS_READ, Scope.SCHEDULES_READ, Scope.QUEUES_READ, Scope.WORKERS_READ}
)
_SUBMITTER = _VIEWER | {Scope.JOBS_SUBMIT, Scope.JOBS_CANCEL, Scope.JOBS_RERUN, Scope.ARTIFACTS_WRITE}
_OPERATOR = _SUBMITTER | {Scope.JOBS_DELETE, Scope.SCHEDULES_WRITE, Scope.QUEUES_CONTROL, Scope.METRICS_READ}
PRESETS: Mapping[Preset, frozenset[Scope]] = {
    "viewer": _VIEWER,
    "submitter": _SUBMITTER,
    "operator": _OPERATOR,
    "admin": ALL,
}
