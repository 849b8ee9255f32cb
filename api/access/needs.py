"""What each route needs of its caller: the one place where that is said.

The document, the refusals and the table of docs/access.md come from here; a route that is not here stops the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from shared.access.scopes import Scope

PUBLIC: Final = "public"  # nobody is asked for a key
ANY_KEY: Final = "any key"  # a key without this or that scope
Need = Scope | Literal["public", "any key"]

NEEDS: Mapping[str, Need] = {
    "POST /jobs": Scope.JOBS_SUBMIT,
    "POST /jobs/batch": Scope.JOBS_SUBMIT,
    "POST /jobs/validate": Scope.JOBS_SUBMIT,
    "POST /jobs/batch/validate": Scope.JOBS_SUBMIT,
    "GET /jobs": Scope.JOBS_READ,
    "GET /jobs/{job_id}": Scope.JOBS_READ,
    "GET /jobs/{job_id}/events": Scope.JOBS_READ,
    "GET /jobs/{job_id}/logs": Scope.JOBS_READ,
    "POST /jobs/cancel": Scope.JOBS_CANCEL,
    "POST /jobs/{job_id}/cancel": Scope.JOBS_CANCEL,
    "POST /jobs/rerun": Scope.JOBS_RERUN,
    "POST /jobs/retry": Scope.JOBS_RERUN,
    "POST /jobs/{job_id}/rerun": Scope.JOBS_RERUN,
    "POST /jobs/{job_id}/retry": Scope.JOBS_RERUN,
    "DELETE /jobs/{job_id}": Scope.JOBS_DELETE,
    "GET /jobs/{job_id}/artifacts": Scope.ARTIFACTS_READ,
    "GET /jobs/{job_id}/artifacts/{name}": Scope.ARTIFACTS_READ,
    "POST /uploads": Scope.ARTIFACTS_WRITE,
    "GET /schedules": Scope.SCHEDULES_READ,
    "GET /schedules/{schedule_id}": Scope.SCHEDULES_READ,
    "POST /schedules": Scope.SCHEDULES_WRITE,
    "PUT /schedules/{schedule_id}": Scope.SCHEDULES_WRITE,
    "DELETE /schedules/{schedule_id}": Scope.SCHEDULES_WRITE,
    "POST /schedules/{schedule_id}/pause": Scope.SCHEDULES_WRITE,
    "POST /schedules/{schedule_id}/resume": Scope.SCHEDULES_WRITE,
    "POST /schedules/{schedule_id}/run": Scope.SCHEDULES_WRITE,
    "GET /queues": Scope.QUEUES_READ,
    "POST /queues/{queue}/pause": Scope.QUEUES_CONTROL,
    "POST /queues/{queue}/resume": Scope.QUEUES_CONTROL,
    "GET /dead-letters": Scope.QUEUES_READ,
    "GET /dead-letters/{letter_id}": Scope.QUEUES_READ,
    "POST /dead-letters/{letter_id}/requeue": Scope.QUEUES_CONTROL,
    "DELETE /dead-letters/{letter_id}": Scope.QUEUES_CONTROL,
    "GET /workers": Scope.WORKERS_READ,
    "GET /metrics": Scope.METRICS_READ,
    "GET /keys": Scope.KEYS_ADMIN,
    "POST /keys": Scope.KEYS_ADMIN,
    "GET /keys/{key_id}": Scope.KEYS_ADMIN,
    "POST /keys/{key_id}/revoke": Scope.KEYS_ADMIN,
    "POST /keys/{key_id}/roll": Scope.KEYS_ADMIN,
    "GET /me": ANY_KEY,
    "GET /job-kinds": PUBLIC,  # as the document is, which says the same
    "GET /job-kinds/{kind}": PUBLIC,
    "GET /livez": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /docs/start.js": PUBLIC,
    "GET /docs/{asset}": PUBLIC,
    "GET /openapi.json": PUBLIC,
}


def scopes_of(need: Need) -> Sequence[str] | None:
    """Return the scopes that a key must have for it; None if there need not be a key."""
    return None if need == PUBLIC else [] if need == ANY_KEY else [need]
