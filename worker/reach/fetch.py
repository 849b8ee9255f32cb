"""Download a client's URL: from allowed addresses only, with limits on bytes and time."""

from __future__ import annotations

import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import httpx

from shared.errors import TaskFailure, TransientFailure
from worker.reach.pinned import PinnedTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from worker.reach.addresses import AllowedHosts

_CHUNK_BYTES = 1024**2
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429}  # transient, like all of 5xx
_LONGEST_RETRY_AFTER_S = 3_600.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one download: bytes, and seconds in total and without received data."""

    max_bytes: int
    timeout_s: float
    idle_timeout_s: float
    max_redirects: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A finished download: bytes as transferred, and the server's description of the file."""

    size_bytes: int
    file_name: str
    media_type: str


def fetch(
    url: str,
    target: Path,
    *,
    allowed: AllowedHosts,
    limits: FetchLimits,
    headers_for: Callable[[str], Mapping[str, str]],
    on_progress: Callable[[int, int | None], None],
) -> Fetched:
    """Stream `url` into the new file `target`.

    `headers_for` returns the secret headers for a URL and is called again for each redirect. `on_progress`
    takes the bytes so far and the total, if the server sends it.

    Raises `TransientFailure` for transient failures (no connection, an incomplete or late response, 408, 425, 429,
    5xx) and `TaskFailure` for permanent ones (``address_refused``, ``source_http_404``, ``source_too_large``, ...).
    """
    transport = PinnedTransport(allowed, time.monotonic() + limits.timeout_s)
    timeout = httpx.Timeout(limits.idle_timeout_s)
    with (
        _translated(urlsplit(url).hostname),
        httpx.Client(transport=transport, timeout=timeout, trust_env=False) as client,
        _final_answer(client, httpx.URL(url), limits.max_redirects, headers_for) as answer,
    ):
        _refuse_bad_status(answer)
        size_bytes = _write(answer, target, limits.max_bytes, on_progress)
        return Fetched(
            size_bytes=size_bytes,
            file_name=PurePosixPath(unquote(answer.url.path)).name,
            media_type=answer.headers.get("content-type", "").partition(";")[0].strip().lower(),
        )


@contextmanager
def _final_answer(
    client: httpx.Client, url: httpx.URL, redirects_left: int, headers_for: Callable[[str], Mapping[str, str]]
) -> Iterator[httpx.Response]:
    """Follow redirects one by one: each is a new request with a new address check and new headers."""
    while True:
        # identity: a compressed transfer hides its size; other encodings are refused below
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **headers_for(str(url))}
        with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code not in _REDIRECTS:
                yield answer
                return
            if redirects_left == 0:
                raise _broken(url, "redirects too often")
            url, redirects_left = _redirect_target(answer), redirects_left - 1
        client.cookies.clear()


def _redirect_target(answer: httpx.Response) -> httpx.URL:
    try:
        target = answer.url.join(answer.headers.get("location", ""))
    except httpx.InvalidURL:
        raise _broken(answer.url, "redirects to an invalid URL") from None
    if target.scheme not in {"http", "https"} or not target.host or "location" not in answer.headers:
        raise _broken(answer.url, "redirects to a URL that is not HTTP or HTTPS")
    return target.copy_with(username=None, password=None, fragment=None)


def _refuse_bad_status(answer: httpx.Response) -> None:
    status = answer.status_code
    if status == httpx.codes.OK:
        return
    code, where = (
        f"source_http_{status}",
        f"{answer.url.host} answered {status} {answer.reason_phrase}".strip(),
    )
    if status in _TRANSIENT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        wait_s = retry_after_s(answer.headers.get("retry-after", ""))
        raise TransientFailure(
            code, f"{where}.", remedy="Check the source's server; the job is retried.", retry_after_s=wait_s
        )
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise TaskFailure(code, f"{where}.", remedy="Set 'connection' to an HTTP connection that may read it.")
    if status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
        raise TaskFailure(code, f"{where}.", remedy="Correct 'url': the source has no file there.")
    raise TaskFailure(code, f"{where}.", remedy="Correct 'url', or find the reason in the log of the source's server.")


def _write(answer: httpx.Response, target: Path, max_bytes: int, on_progress: Callable[[int, int | None], None]) -> int:
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", "zstd"}:
        raise _broken(answer.url, f"sends the content encoding {encoding!r}, which was not requested")
    declared = answer.headers.get("content-length", "")
    total = int(declared) if declared.isdecimal() else None
    if total is not None and total > max_bytes:
        raise _too_large(answer.url, max_bytes)
    size_bytes = 0
    with target.open("xb") as file:
        for chunk in answer.iter_raw(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise _too_large(answer.url, max_bytes)
            file.write(chunk)
            on_progress(size_bytes, total)
    return size_bytes


@contextmanager
def _translated(host: str | None) -> Iterator[None]:
    """Turn httpx's errors into transient or permanent failures."""
    try:
        yield
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: a host name that IDNA does not allow
        raise TaskFailure("source_invalid", "source.url is not a valid URL.", remedy="Correct it.") from None
    except httpx.TimeoutException:
        raise TransientFailure(
            "source_timeout",
            f"{host} did not respond in time.",
            remedy="Check the source's server; the job is retried.",
        ) from None
    except httpx.TransportError as failed:
        if _is_bad_certificate(failed):
            raise TaskFailure(
                "source_tls_invalid",
                f"The TLS certificate of {host} is not valid: {failed}.",
                remedy="Fix the certificate, or add its authority to SSL_CERT_FILE of the workers.",
            ) from None
        raise TransientFailure(
            "source_unreachable",
            f"The connection to {host} failed: {failed}.",
            remedy="Check the source's server; the job is retried.",
        ) from None


def _is_bad_certificate(failed: BaseException) -> bool:
    cause: BaseException | None = failed
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def retry_after_s(value: str) -> float | None:
    """Return the seconds of a Retry-After header, given in seconds or as a date; None if it is neither."""
    if value.strip().isdecimal():
        wait_s = float(value)
    else:
        try:
            due_at = parsedate_to_datetime(value)
        except ValueError:
            return None
        wait_s = (due_at.replace(tzinfo=due_at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(wait_s, 0.0), _LONGEST_RETRY_AFTER_S)


def _broken(url: httpx.URL, what: str) -> TaskFailure:
    return TaskFailure("source_broken", f"{url.host} {what}.", remedy="Correct 'url', or fix the server.")


def _too_large(url: httpx.URL, max_bytes: int) -> TaskFailure:
    return TaskFailure(
        "source_too_large",
        f"The file at {url.host} is larger than {max_bytes} bytes, the limit of downloads.",
        remedy="Split it, or raise CELERIAC_HTTP_MAX_BYTES on the workers.",
        max_bytes=max_bytes,
    )
