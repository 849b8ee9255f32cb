"""Send the outcome of a job to its callback_url, signed according to Standard Webhooks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook

from shared.connections.addresses import AllowedHosts
from shared.errors import TaskFailure, TransientFailure
from shared.ledger.records import Record
from shared.ledger.states import FINAL_STATES
from worker.reach.fetch import retry_after_s
from worker.reach.pinned import PinnedTransport

LARGEST_RESULT_BYTES = 16 * 1024  # Standard Webhooks recommends less than 20 kB
_WHOLE_S = 30.0  # for connecting, sending and the response's headers together
_IDLE_S = 15.0
_TRIED_AGAIN = "Fix the receiver; the callback is retried for about a day, with increasing delays."


@dataclass(frozen=True, slots=True)
class Callback:
    """One message: its id and every byte of its body are the same in all retries."""

    id: str
    url: str
    body: str

    @property
    def host(self) -> str:
        """The part of the URL that may be shown: paths and queries can carry secrets."""
        return urlsplit(self.url).hostname or ""


def callback_of(job: Record) -> Callback:
    """Return the message with the outcome of `job`. Raises `TaskFailure` if there is none to send."""
    url = json.loads(job.options).get("callback_url")
    if job.state not in FINAL_STATES or job.finished_at is None:
        raise TaskFailure(
            "job_not_ended", "The job has not ended yet.", remedy="Wait: the callback is sent when the job ends."
        )
    if not url:
        raise TaskFailure(
            "no_callback_url",
            "The job was submitted without a callback_url.",
            remedy="Poll it, or submit it with options.callback_url.",
        )
    body = {"type": f"job.{job.state}", "timestamp": _iso(job.finished_at), "data": _told(job)}
    return Callback(id=f"msg_{job.id}", url=url, body=_as_sent(body))


def _as_sent(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))  # ASCII: each character is a byte


def signed_headers(callback: Callback, secrets: Iterable[str], now: datetime) -> dict[str, str]:
    """Return the headers of one attempt at `now`: a signature per secret, so that receivers may have either."""
    return {
        "content-type": "application/json",
        "user-agent": "Celeriac",
        "webhook-id": callback.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(callback.id, now, callback.body) for secret in secrets),
    }


def deliver(callback: Callback, headers: dict[str, str], *, allowed: AllowedHosts) -> int:
    """POST the message to checked addresses without following redirects; return the 2xx status of the response.

    The response's body is never read. Raises `TransientFailure` for transient failures, and `TaskFailure` for an
    internal address and for 410, with which a receiver declines further callbacks.
    """
    transport = PinnedTransport(allowed, time.monotonic() + _WHOLE_S)
    with (
        _translated(callback.host),
        httpx.Client(transport=transport, timeout=_IDLE_S, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", callback.url, content=callback.body, headers=headers) as answer,
    ):
        _refuse_bad_status(answer, callback.host)
        return answer.status_code


def _refuse_bad_status(answer: httpx.Response, host: str) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    if status == httpx.codes.GONE:
        raise TaskFailure(
            "callback_gone",
            f"{host} answered 410, so no more callbacks are sent for this job.",
            remedy="Rerun the job with another options.callback_url, or poll it.",
        )
    if answer.is_redirect:
        raise TaskFailure(
            "callback_redirected",
            f"{host} answered {status}, a redirect; callbacks do not follow redirects.",
            remedy="Rerun the job with the target of the redirect as options.callback_url.",
        )
    raise TransientFailure(
        f"callback_http_{status}",
        f"{host} answered {status}; only 2xx acknowledges the callback.",
        remedy=_TRIED_AGAIN,
        retry_after_s=retry_after_s(answer.headers.get("retry-after", "")),
    )


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """Turn httpx's errors into transient failures; none shows the URL."""
    try:
        yield
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: a host name that IDNA does not allow
        raise TaskFailure(
            "callback_url_invalid",
            "The callback_url is not a valid URL.",
            remedy="Rerun the job with a valid options.callback_url.",
        ) from None
    except httpx.TimeoutException:
        raise TransientFailure("callback_timeout", f"{host} did not respond in time.", remedy=_TRIED_AGAIN) from None
    except httpx.HTTPError as failed:
        raise TransientFailure(
            "callback_unreachable", f"The connection to {host} failed: {type(failed).__name__}.", remedy=_TRIED_AGAIN
        ) from None


def _told(job: Record) -> dict[str, Any]:
    """Return the callback's content: no parameters, and the result only if it is small."""
    result = None if job.result is None else json.loads(job.result)
    fits = len(_as_sent(result)) <= LARGEST_RESULT_BYTES
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "tags": job.tags,
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "finished_at": _iso(job.finished_at),
        "error": json.loads(job.error) if job.error else None,
        "result": result if fits else None,
        "is_result_omitted": not fits,
    }


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
