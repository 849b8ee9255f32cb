"""Each error that a client can make is a problem document that names the place and the remedy."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis

from api.app import create_app
from api.settings import GatewaySettings
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from tests.api.conftest import MAX_BODY_BYTES
from tests.support.servers.cpu_waits import Stopwatch
from tests.support.servers.outages import frozen
from tests.support.servers.services import BOUND_S, Server, gateway_server, valkey_server

if TYPE_CHECKING:
    from pathlib import Path


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem document of an answer, once its form is as promised."""
    assert (status, "application/problem+json") == (response.status_code, response.headers["content-type"])
    document: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"} == document.keys()
    assert (f"urn:celeriac:problem:{code}", code, status) == (document["type"], document["code"], document["status"])
    assert response.request.url.path == document["instance"]
    assert response.headers["x-request-id"] == document["request_id"]
    return document


def changed(submission: dict[str, Any], pointer: str, value: Any) -> dict[str, Any]:
    """Return a copy of a submission with `value` at `pointer`; the value `...` takes the field away."""
    submission = copy.deepcopy(submission)
    *path, last = pointer.strip("/").split("/")
    place: Any = submission
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return submission


def test_unknown_kind_names_the_nearest(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A mistyped kind is told which one was probably meant, and where the list is."""
    response = api.post("/jobs", json=extraction | {"kind": "etl.extract_dta"})
    (error,) = problem(response, 422, "unknown_kind")["errors"]
    assert error["pointer"] == "/kind"
    assert "Did you mean 'etl.extract_data'?" in error["message"]
    assert "GET /job-kinds" in error["message"]


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    [
        ("/kind", ..., "missing"),
        ("/params", ..., "missing"),
        ("/params/source", ..., "missing"),
        ("/params/source/url", ..., "missing"),
        ("/params/source/kind", "htp", "Did you mean 'http'?"),
        ("/params/sauce", {}, "Did you mean 'source'?"),
        ("/params/source/layot", {}, "Did you mean 'layout'?"),
        ("/option", {}, "Did you mean 'options'?"),
        ("/options", {"priority": False}, "valid integer"),
        ("/options", {"priority": "1"}, "valid integer"),
        ("/options", {"priority": 10}, "less than or equal to 9"),
        ("/options", {"delay_s": -1}, "greater than or equal to 0"),
        ("/options", {"run_at": 1_800_000_000}, "valid datetime"),
        ("/options", {"run_at": "2026-01-31T12:00:00"}, "timezone"),
        ("/options", {"tags": ["no spaces"]}, "letters, digits"),
        ("/options", {"queue": "elt"}, "Did you mean 'etl'?"),
        ("/options", {"time_limit_s": 1_000_000}, "at most 3600 s"),
        ("/options", {"delay_s": 60, "expires_in_s": 30}, "expire before"),
        ("/params/source/layout", {"has_header": "true"}, "valid boolean"),
        ("/params/source/layout", {"null_values": ["", 1]}, "valid string"),
    ],
)
def test_wrong_field_is_named(
    pointer: str, value: Any, message: str, api: httpx.Client, extraction: dict[str, Any]
) -> None:
    """Missing, extra, mistyped and impossible fields are named by a pointer into the body."""
    document = problem(api.post("/jobs", json=changed(extraction, pointer, value)), 422, "invalid_request")
    (error,) = document["errors"]
    assert error["pointer"].startswith(pointer)
    assert message in error["message"]
    assert message in document["detail"]


def test_pointer_goes_to_the_very_element(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Union tags are not part of a pointer; indexes are."""
    body = changed(extraction, "/params/source/layout", {"null_values": ["", 1]})
    (error,) = problem(api.post("/jobs", json=body), 422, "invalid_request")["errors"]
    assert error["pointer"] == "/params/source/layout/null_values/1"


def test_pointer_escapes_slash_and_tilde(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """RFC 6901: ~ becomes ~0 and / becomes ~1."""
    body = changed(extraction, "/params/source/layout", {"a/b~c": 1})
    (error,) = problem(api.post("/jobs", json=body), 422, "invalid_request")["errors"]
    assert error["pointer"] == "/params/source/layout/a~1b~0c"


def test_what_a_contract_says_stands_by_itself(api: httpx.Client) -> None:
    """Without the words that Pydantic puts before it."""
    params = {"dataset": f"artifact://{uuid7()}/1/data.parquet"}
    (error,) = problem(
        api.post("/jobs", json={"kind": "etl.transform_data", "params": params}), 422, "invalid_request"
    )["errors"]
    assert error["message"].startswith("set exactly one of")


def test_unknown_connection_names_the_known(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """A job that names a connection nobody configured is refused before it runs."""
    body = changed(pipeline, "/params/destination/connection", "warehose")
    (error,) = problem(api.post("/jobs", json=body), 422, "unknown_connection")["errors"]
    assert error["pointer"] == "/params/destination/connection"
    assert "Configured: shop, warehouse" in error["message"]
    assert "lake" not in error["message"]


def test_workflow_has_no_queue_of_its_own(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """Its steps have theirs, so asking for one is a mistake and not silently ignored."""
    response = api.post("/jobs", json=pipeline | {"options": {"queue": "etl"}})
    assert problem(response, 422, "invalid_request")["errors"][0]["pointer"] == "/options/queue"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b'{"kind": "etl.extract_data",}', "trailing comma at line 1 column 29"),
        (b'{"kind":\n nope}', "line 2 column 3"),
        (b"\xff\xfe", "line 1 column 1"),
        (b'{"kind": NaN}', "NaN"),
        (b'{"kind": "etl.extract_data", "params": {"x": -Infinity}}', "Infinity"),
        (b'{"kind": "etl.extract_data", "params": {"x": [1e999]}}', "1e999"),
    ],
)
def test_what_is_not_json_is_refused_with_its_position(body: bytes, detail: str, api: httpx.Client) -> None:
    """Malformed JSON, and the numbers that JSON does not have."""
    response = api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert detail in problem(response, 400, "malformed_json")["detail"]


def test_text_that_looks_like_a_strange_number_passes(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """NaN and 1e999 inside strings are strings."""
    body = changed(extraction, "/params/source/layout", {"null_values": ["NaN", "-Infinity", "1e999"]})
    assert api.post("/jobs", json=body).status_code == 202


@pytest.mark.parametrize("depth", [34, 150, 5_000])
@pytest.mark.parametrize("pair", ["[]", '{"":}'])
def test_too_deep_body_is_refused(depth: int, pair: str, api: httpx.Client) -> None:
    """Nesting that would crash a worker, or the parser, stops here."""
    nested = pair[:-1] * depth + "0" + pair[-1] * depth
    body = f'{{"kind": "etl.extract_data", "params": {nested}}}'
    response = api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert "32 levels" in problem(response, 422, "too_deep")["detail"]


def test_brackets_in_text_do_not_count_as_depth(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """Only real nesting counts, not brackets in strings or many neighbours."""
    body = changed(extraction, "/params/source/layout", {"null_values": ['[{"' * 20 + "\\"] * 20})
    assert api.post("/jobs", json=body).status_code == 202


def test_too_large_body_is_refused_before_it_is_read(api: httpx.Client) -> None:
    """The announced length is enough to say no."""
    response = api.post("/jobs", content=b" " * (MAX_BODY_BYTES + 1), headers={"Content-Type": "application/json"})
    assert f"{MAX_BODY_BYTES} bytes" in problem(response, 413, "body_too_large")["detail"]


def test_too_large_body_of_unknown_length_is_refused(api: httpx.Client) -> None:
    """A chunked body is counted while it comes."""
    response = api.post(
        "/jobs", content=(b" " * 1024 for _ in range(100)), headers={"Content-Type": "application/json"}
    )
    problem(response, 413, "body_too_large")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_other_media_types_are_refused(media_type: str | None, api: httpx.Client) -> None:
    """Only JSON is read."""
    headers = {"Content-Type": media_type} if media_type else {}
    response = api.post("/jobs", content=b"{}", headers=headers)
    assert "application/json" in problem(response, 415, "unsupported_media_type")["detail"]


def test_batch_errors_name_the_index_and_nothing_is_accepted(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """All or nothing: one wrong job keeps back its neighbours."""
    good = extraction | {"options": {"tags": ["all-or-nothing"]}}
    bad = changed(good, "/params/source/url", 5)
    response = api.post("/jobs/batch", json={"jobs": [good, bad, good | {"kind": "x.y"}]})
    errors = problem(response, 422, "unknown_kind")["errors"]
    assert [error["pointer"] for error in errors] == ["/jobs/1/params/source/url", "/jobs/2/kind"]
    assert api.get("/jobs", params={"tag": "all-or-nothing"}).json()["jobs"] == []


def test_batch_names_the_index_of_an_unknown_connection(
    api: httpx.Client, extraction: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    """What only the gateway's settings can say has a pointer, too."""
    bad = changed(pipeline, "/params/destination/connection", "nowhere")
    response = api.post("/jobs/batch", json={"jobs": [extraction, bad]})
    (error,) = problem(response, 422, "unknown_connection")["errors"]
    assert error["pointer"] == "/jobs/1/params/destination/connection"


@pytest.mark.parametrize("size", [0, 1_001])
def test_batch_has_a_size(size: int, api: httpx.Client) -> None:
    """At least one job, at most a thousand."""
    response = api.post("/jobs/batch", json={"jobs": [{"kind": "x.y"}] * size})
    assert problem(response, 422, "invalid_request")["errors"][0]["pointer"] == "/jobs"


@pytest.mark.parametrize("job_id", ["0192f0c1-2a4b-7c3d-8e5f-0123456789ab", "not-an-id"])
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("POST", "/cancel")])
def test_unknown_job_is_404(job_id: str, method: str, suffix: str, api: httpx.Client) -> None:
    """An id that never existed is not 'pending'."""
    problem(api.request(method, f"/jobs/{job_id}{suffix}"), 404, "unknown_job")


def test_forgotten_job_is_410(api: httpx.Client, valkey: Server) -> None:
    """A job whose retention is over is told apart from one that never was."""
    job_id = uuid7()
    with redis.Redis(port=valkey.port) as client:
        client.zadd(key("gone"), {job_id: time.time() * 1000})
    problem(api.get(f"/jobs/{job_id}"), 410, "expired_job")


def test_a_step_is_not_a_job(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """A step's id is answered with the id of its job."""
    job = api.get(api.post("/jobs", json=pipeline).headers["location"]).json()
    step_id = job["steps"][0]["id"]
    assert job["id"] in problem(api.get(f"/jobs/{step_id}"), 404, "unknown_job")["detail"]


def test_ended_job_cannot_be_cancelled(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """The answer names the state in which it ended."""
    url = api.post("/jobs", json=extraction).headers["location"]
    assert api.post(f"{url}/cancel").status_code == 200
    assert "cancelled" in problem(api.post(f"{url}/cancel"), 409, "job_ended")["detail"]


@pytest.mark.parametrize("token", ["x", "AAAA", "A" * 40, "%00", "é"])
def test_bad_page_token_is_refused(token: str, api: httpx.Client) -> None:
    """A token that this service did not give."""
    response = api.get("/jobs", params={"page_token": token})
    assert problem(response, 422, "invalid_page_token")["errors"][0]["pointer"] == "page_token"


@pytest.mark.parametrize(
    ("name", "value"), [("state", "done"), ("page_size", "0"), ("page_size", "201"), ("stat", "queued"), ("tag", " ")]
)
def test_wrong_query_parameter_is_named(name: str, value: str, api: httpx.Client) -> None:
    """Also one that does not exist: a mistyped filter would list everything."""
    assert name in problem(api.get("/jobs", params={name: value}), 422, "invalid_request")["errors"][0]["pointer"]


def test_used_idempotency_key_with_another_body_is_refused(api: httpx.Client, extraction: dict[str, Any]) -> None:
    """A key belongs to one request."""
    headers = {"Idempotency-Key": uuid7()}
    assert api.post("/jobs", json=extraction, headers=headers).status_code == 202
    other = extraction | {"options": {"priority": 5}}
    document = problem(api.post("/jobs", json=other, headers=headers), 422, "idempotency_conflict")
    assert document["errors"][0]["pointer"] == "Idempotency-Key"
    problem(api.post("/jobs/batch", json={"jobs": [extraction]}, headers=headers), 422, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "x" * 256, "line\tbreak"])
def test_odd_idempotency_key_is_refused(key: str, api: httpx.Client, extraction: dict[str, Any]) -> None:
    """1 to 255 printable characters."""
    response = api.post("/jobs", json=extraction, headers={"Idempotency-Key": key})
    assert problem(response, 422, "invalid_request")["errors"][0]["pointer"].lower() == "idempotency-key"


def test_unknown_path_is_a_problem(api: httpx.Client) -> None:
    """Nothing answers in another form."""
    problem(api.get("/job"), 404, "not_found")


def test_wrong_method_is_told_the_right_ones(api: httpx.Client) -> None:
    """RFC 9110: `Allow` lists what the path takes."""
    response = api.put("/jobs")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"


def test_unknown_kind_of_the_catalogue_is_404(api: httpx.Client) -> None:
    """It names the nearest, as submitting does."""
    assert "'etl.load_data'" in problem(api.get("/job-kinds/etl.load_dat"), 404, "unknown_kind")["detail"]


def test_defect_says_nothing_about_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A 500 has an id to look for; the exception's text is in the log only, without credentials."""
    app = create_app(GatewaySettings(broker_url="redis://127.0.0.1:1/0"))

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("secret plans at postgresql://me:hunter2@db/x")

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/defect")

    response = asyncio.run(ask())
    document = problem(response, 500, "internal_error")
    assert "secret plans" not in response.text
    logged = capsys.readouterr().out
    assert "secret plans" in logged
    assert document["request_id"] in logged
    assert "hunter2" not in logged


def test_broker_that_is_down_or_hangs_is_503_within_3_s(tmp_path: Path, extraction: dict[str, Any]) -> None:
    """Submitting, reading and workflows say when to come back; when the broker is back, so is the gateway."""
    sources = {"sources": [extraction["params"]["source"]] * 2}
    calls: list[dict[str, Any]] = [
        {"method": "POST", "url": "/jobs", "json": extraction},
        {"method": "POST", "url": "/jobs", "json": {"kind": "etl.run_partitioned", "params": sources}},
        {"method": "POST", "url": "/jobs/batch", "json": {"jobs": [extraction] * 3}},
        {"method": "GET", "url": f"/jobs/{uuid7()}"},
        {"method": "GET", "url": "/jobs"},
    ]

    def refused_in_time(server: Server, client: httpx.Client) -> None:
        for call in calls:
            watch = Stopwatch(server.process.pid)
            response = client.request(**call)
            assert watch.own_s < 3
            is_submission = call["url"] in {"/jobs", "/jobs/batch"} and call["method"] == "POST"
            is_unknown = is_submission and response.json()["code"] == "outcome_unknown"  # sent, and no reply
            problem(response, 503, "outcome_unknown" if is_unknown else "ledger_unavailable")
            assert int(response.headers["retry-after"]) >= 1

    with valkey_server(tmp_path / "valkey") as broker:
        env = {"CELERY_BROKER_URL": broker.redis_url, "CELERIAC_STORE_URL": str(tmp_path / "artifacts")}
        with gateway_server(tmp_path, **env) as server, httpx.Client(base_url=server.url, timeout=BOUND_S) as client:
            with frozen(broker.process.pid):
                refused_in_time(server, client)
            assert client.post("/jobs", json=extraction).status_code == 202
            broker.process.kill()
            broker.process.wait()
            refused_in_time(server, client)


def test_problem_documents_are_valid_json_whatever_the_client_sent(api: httpx.Client) -> None:
    """What is quoted is bounded, so an error is never larger than its cause."""
    response = api.post("/jobs", json={"kind": "\u0000\U0001f600" * 1_000, "params": {}})
    document = problem(response, 422, "unknown_kind")
    assert len(json.dumps(document)) < 5_000


def test_the_errors_of_a_large_workflow_are_bounded(api: httpx.Client) -> None:
    """A chunk of thousands of wrong items names the first hundred, not all of them."""
    params = {"kind": "etl.extract_data", "parameters": ["source"], "items": [[1]] * 3_000, "chunk_size": 100}
    response = api.post("/jobs", json={"kind": "workflow.chunks", "params": params})
    errors = problem(response, 422, "invalid_request")["errors"]
    assert (len(errors), errors[-1]["pointer"]) == (100, "/params/items/99/source")
