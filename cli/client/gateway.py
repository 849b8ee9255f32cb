"""An HTTP client of the gateway."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

DEFAULT_URL = "http://127.0.0.1:8000"

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0
_SILENCE_S = 45.0  # an event stream sends comments more often, so a longer silence means a dead connection
_SERVER_ERRORS = 500


class Unreachable(Exception):
    """The gateway's URL does not respond, or is not a gateway."""


class Refused(Exception):
    """The gateway answered with a problem document (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any], text: str) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        self.status = status
        self.problem = problem
        self.text = text  # exactly what the server sent

    @property
    def is_servers_fault(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= _SERVER_ERRORS


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed document of the gateway, and its exact text."""

    document: Any
    text: str


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event; `data` is its JSON object, `text` the object as sent."""

    id: str
    event: str
    data: dict[str, Any]
    text: str


class Gateway:
    """A client of one gateway. Raises `Unreachable` and `Refused`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            headers={"Accept": "application/json, application/problem+json"},
            verify=httpx.URL(self.url).scheme != "http",  # reading the certificates takes longer than a request
            trust_env=not _is_loopback(self.url),  # a proxy cannot reach our loopback address
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, *, read_timeout_s: float = _READ_TIMEOUT_S, **query: Any) -> Answer:
        """Return the document at `path`; empty query values are omitted."""
        timeout = httpx.Timeout(read_timeout_s, connect=_CONNECT_TIMEOUT_S)
        return self._ask("GET", path, params=_given(query), timeout=timeout)

    def post(self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **query: Any) -> Answer:
        """POST a JSON body (no body for None) and return the response."""
        sent: dict[str, Any] = {} if body is None else {"json": body}
        return self._ask("POST", path, params=_given(query), headers=headers, **sent)

    def put(self, path: str, body: Any) -> Answer:
        """PUT a JSON body and return the response."""
        return self._ask("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE the resource; the response is empty."""
        self._ask("DELETE", path)

    def job(self, job_id: str, *, wait_s: float | None = None) -> Answer:
        """Return a job; with `wait_s`, when it ends or after that many seconds."""
        return self.get(f"/jobs/{segment(job_id)}", wait_s=wait_s, read_timeout_s=_READ_TIMEOUT_S + (wait_s or 0))

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[ServerEvent]:
        """Yield the events of a job to its end, starting after the event id `after` if given."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_TIMEOUT_S)
        try:
            with self._client.stream(
                "GET", f"/jobs/{segment(job_id)}/events", headers=headers, timeout=timeout
            ) as response:
                if response.is_error:
                    response.read()
                    self._understand(response)
                yield from server_events(response.iter_lines())
        except httpx.TransportError as failure:
            raise self._unreachable(failure) from failure

    def download(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file."""
        try:
            with self._client.stream("GET", path, headers={"Accept": "*/*"}) as response:
                if response.is_error:
                    response.read()
                    self._understand(response)
                yield from response.iter_bytes()
        except httpx.TransportError as failure:
            raise self._unreachable(failure) from failure

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        try:
            response = self._client.request(method, path, **options)
        except httpx.TransportError as failure:
            raise self._unreachable(failure) from failure
        return self._understand(response)

    def _understand(self, response: httpx.Response) -> Answer:
        if response.status_code == httpx.codes.NO_CONTENT:
            return Answer(None, "")
        try:
            document = response.json()
        except ValueError:
            raise Unreachable(
                f"{self.url} is not a Celeriac gateway (HTTP {response.status_code} without JSON)."
            ) from None
        if response.is_error:
            problem = document if isinstance(document, dict) else {}
            raise Refused(response.status_code, problem, response.text)
        return Answer(document, response.text)

    def _unreachable(self, failure: httpx.TransportError) -> Unreachable:
        return Unreachable(f"The gateway at {self.url} does not respond: {str(failure) or type(failure).__name__}.")


def server_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Yield the events in the lines of an event stream (WHATWG HTML, 9.2.6); comments are keep-alives."""
    event, last_id, data = "message", "", list[str]()
    for line in lines:
        if not line:
            if data:
                text = "\n".join(data)
                yield ServerEvent(last_id, event, json.loads(text), text)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value


def segment(name: str) -> str:
    """Return `name` as one segment of a path; what is not UTF-8 in an argument of a program stays as it is."""
    if not name.strip("."):
        return name.replace(".", "%2E")  # clients resolve `.` and `..`
    return quote(name, safe="", errors="surrogateescape")


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None and value not in ([], ())}


def _is_loopback(url: str) -> bool:
    return httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}
