"""Plain requests skip FastAPI's reading of parameters; nothing else about them differs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from api.jobs.schemas import BatchAccepted, Job, JobAccepted

if TYPE_CHECKING:
    import httpx

_WHAT_CHANGES = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|"[0-9T:.-]+Z"|[0-9a-f]{32}')
_HEADERS_THAT_CHANGE = {"date", "x-request-id", "location", "etag"}
_NOT_PLAIN = {"validate_only": "false"}


def seen(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Return what a client sees, without ids and times."""
    headers = {name: value for name, value in answer.headers.items() if name not in _HEADERS_THAT_CHANGE}
    return answer.status_code, headers, _WHAT_CHANGES.sub("*", answer.text)


BODIES: dict[str, Any] = {
    "valid": b'{"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/a.csv"}}}',
    "invalid": b'{"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": 1}}, "more": 1}',
    "unknown kind": b'{"kind": "etl.extract", "params": {}}',
    "unknown connection": b'{"kind": "etl.extract_data", '
    b'"params": {"source": {"kind": "sql", "connection": "x", "table": "t"}}}',
    "malformed": b'{"kind": ',
    "not finite": b'{"kind": "etl.extract_data", "params": {"source": 1e999}}',
    "deep": b"[" * 100 + b"]" * 100,
    "invalid text": b'{"kind": "\xff"}',
    "twice": b'{"kind": "etl.extract_data", "kind": "etl.load_data", "params": {}}',
    "large": b" " * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
@pytest.mark.parametrize("what", BODIES)
def test_a_submission_is_answered_alike_with_and_without_a_query(api: httpx.Client, path: str, what: str) -> None:
    """A query makes FastAPI read the parameters; the answer is the same to the byte, errors included."""
    body = BODIES[what] if path == "/jobs" else b'{"jobs": [' + BODIES[what] + b"]}"
    headers = {"Content-Type": "application/json"}
    plain = api.post(path, content=body, headers=headers)
    assert seen(plain) == seen(api.post(path, params=_NOT_PLAIN, content=body, headers=headers))
    assert (plain.status_code == 202) == (what == "valid")


def test_what_is_sent_is_what_the_document_says(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """The answers are written without models, and are exactly those of the models."""
    one = api.post("/jobs", json=extraction | {"options": {"delay_s": 60}})
    assert JobAccepted.model_validate_json(one.content).model_dump_json() == one.text
    several = api.post("/jobs/batch", json={"jobs": [extraction, extraction | {"options": {"delay_s": 60}}]})
    assert BatchAccepted.model_validate_json(several.content).model_dump_json() == several.text
    job = api.get(one.headers["Location"])
    assert Job.model_validate_json(job.content).model_dump_json() == job.text


def test_a_job_is_read_alike_in_both_ways(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A query and an id that is not a UUID take FastAPI's way; headers that are read need not."""
    job_id = api.post("/jobs", json=extraction | {"options": {"delay_s": 60}}).json()["id"]
    plain = api.get(f"/jobs/{job_id}")
    others = [
        api.get(f"/jobs/{job_id}", params={"wait_s": 0}),
        api.get(f"/jobs/{job_id}", headers={"If-None-Match": '"other"'}),
    ]
    assert [(other.status_code, other.headers["ETag"], other.content) for other in others] == [
        (200, plain.headers["ETag"], plain.content)
    ] * len(others)
    known = {"If-None-Match": plain.headers["ETag"]}
    for query in ({}, {"wait_s": 0}):
        assert api.get(f"/jobs/{job_id}", headers=known, params=query).status_code == 304
    missing = "00000000-0000-7000-8000-000000000000"
    assert seen(api.get(f"/jobs/{missing}")) == seen(api.get(f"/jobs/{missing}", params={"wait_s": 0}))
    assert api.get("/jobs/none").json()["code"] == "unknown_job"


@pytest.mark.parametrize(
    "headers",
    [
        [("Idempotency-Key", "")],
        [("Idempotency-Key", "k" * 256)],
        [("Idempotency-Key", "\u00e9".encode())],
        [("Idempotency-Key", "twice-1"), ("Idempotency-Key", "twice-2")],
        [("X-Request-ID", "no uuid")],
        [("Content-Type", "text/plain")],
    ],
)
def test_headers_are_read_alike_with_and_without_a_query(
    api: httpx.Client, extraction: dict[str, Any], headers: list[tuple[str, str]]
) -> None:
    """What is wrong with a header is said in the same words, and what is right has the same effect."""
    content = json.dumps(extraction).encode()
    sent = headers if headers[0][0] == "Content-Type" else [("Content-Type", "application/json"), *headers]
    status, answered, text = seen(api.post("/jobs", content=content, headers=sent))
    if "Idempotency-Key" in dict(headers) and status == 202:
        answered["idempotency-replayed"] = "true"
    assert seen(api.post("/jobs", content=content, headers=sent, params=_NOT_PLAIN)) == (status, answered, text)


def test_plain_requests_are_measured(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Under the path of their route, with method and status, like all others; what no route takes is `none`."""

    def counts(handler: str, method: str, status: str) -> tuple[float, float]:
        labels = re.escape(f'{{handler="{handler}",method="{method}",status="{status}"}}')
        text = api.get("/metrics").text
        found = [
            re.search(rf"^{name}{labels} (\S+)$", text, re.MULTILINE)
            for name in ("http_requests_total", "http_request_duration_seconds_count")
        ]
        counted, timed = (float(one[1]) if one else 0.0 for one in found)
        return counted, timed

    unknown = "/jobs/00000000-0000-7000-8000-000000000000"
    for handler, method, status, path, body in (
        ("/jobs", "POST", "202", "/jobs", extraction),
        ("/jobs", "POST", "422", "/jobs", {}),
        ("/jobs/{job_id}", "GET", "404", unknown, None),
        ("/jobs", "PATCH", "405", "/jobs", None),
        ("none", "GET", "404", "/nowhere", None),
    ):
        counted, timed = counts(handler, method, status)
        api.request(method, path, json=body)
        assert counts(handler, method, status) == (counted + 1, timed + 1)
