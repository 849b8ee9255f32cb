"""A client of the gateway for other applications.

    from celeriac.client import Client

    with Client() as client:
        job = client.wait(client.submit(ShoutText(text="hello")))
        print(job.result.text)

`Client` waits in threads, `AsyncClient` in tasks; they have the same methods. Needs `pip install 'celeriac[client]'`.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("httpx") is None:
    from celeriac.extras import how_to_install

    raise ImportError(f"celeriac.client needs httpx. Run: {how_to_install('client')}")

from celeriac.client.aclient import AsyncClient
from celeriac.client.answers import (
    Cancellation,
    Event,
    Job,
    JobArtifact,
    JobRef,
    JobSummary,
    LogLine,
    Schedule,
    Submitted,
    Validated,
)
from celeriac.client.client import Client
from celeriac.client.failures import ClientFailure, FieldError, JobFailed, NotEnded, Refused, Unreachable, WrongChecksum
from celeriac.client.gateway import DEFAULT_URL, Retries
from celeriac.client.wire import Answer

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "AsyncClient",
    "Cancellation",
    "Client",
    "ClientFailure",
    "Event",
    "FieldError",
    "Job",
    "JobArtifact",
    "JobFailed",
    "JobRef",
    "JobSummary",
    "LogLine",
    "NotEnded",
    "Refused",
    "Retries",
    "Schedule",
    "Submitted",
    "Unreachable",
    "Validated",
    "WrongChecksum",
]
