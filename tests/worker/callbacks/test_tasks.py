"""What a callback says, how it is signed, and where it may go, without gateway and workers."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from shared.connections.addresses import AllowedHosts
from shared.connections.callbacks import CallbackSettings, concurrency_key_of, problem_with_callback
from shared.contract.options import RunOptions
from shared.errors import TaskFailure, TransientFailure
from shared.ledger.ids import uuid7
from shared.ledger.records import Record
from tests.support.servers.receivers import Receiver, receiving
from worker.callbacks.sending import LARGEST_RESULT_BYTES, Callback, callback_of, deliver, signed_headers
from worker.observability import configure_logging

SECRET, OLD_SECRET = (f"whsec_{base64.b64encode(bytes([seed] * 32)).decode()}" for seed in (1, 2))
URL = "https://example.com/hooks/hunter2"
NOBODY = AllowedHosts.of([])
LOCAL = AllowedHosts.of(["127.0.0.1"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def ended(**changes: Any) -> Record:
    job = Record(
        id=uuid7(),
        kind="etl.extract_data",
        queue="etl",
        state="succeeded",
        created_at=1_700_000_000_000,
        started_at=1_700_000_001_000,
        finished_at=1_700_000_002_500,
        priority=4,
        params='{"source": "secret.csv"}',
        options=json.dumps({"callback_url": URL}),
        tags=("nightly",),
        retention_ms=60_000,
        max_crashes=3,
        max_retries=2,
        result='{"rows": 3}',
    )
    return replace(job, **changes)


def settings(**values: Any) -> CallbackSettings:
    return CallbackSettings(**{"webhook_secret": SECRET, **values})


def sent(callback: Callback, *secrets: str) -> dict[str, str]:
    return signed_headers(callback, secrets, datetime.now(UTC))


def test_a_callback_tells_how_the_job_ended_and_not_with_which_parameters() -> None:
    """Type, times, result and tags are told; the parameters stay here."""
    job = ended()
    callback = callback_of(job)
    assert json.loads(callback.body) == {
        "type": "job.succeeded",
        "timestamp": "2023-11-14T22:13:22.500+00:00",
        "data": {
            "id": job.id,
            "kind": "etl.extract_data",
            "state": "succeeded",
            "tags": ["nightly"],
            "created_at": "2023-11-14T22:13:20.000+00:00",
            "started_at": "2023-11-14T22:13:21.000+00:00",
            "finished_at": "2023-11-14T22:13:22.500+00:00",
            "error": None,
            "result": {"rows": 3},
            "is_result_omitted": False,
        },
    }
    assert "secret.csv" not in callback.body


def test_a_failure_is_told_with_its_error_and_a_large_result_is_left_out() -> None:
    """The receiver reads what is left out from the gateway."""
    failed = json.loads(callback_of(ended(state="failed", result=None, error='{"code": "bad"}')).body)
    assert (failed["type"], failed["data"]["error"], failed["data"]["result"]) == ("job.failed", {"code": "bad"}, None)
    for text, fits in (("x", True), ("\N{SNOWMAN}", False)):  # the bytes that are sent count, not the characters
        body = callback_of(ended(result=json.dumps(text * (LARGEST_RESULT_BYTES - 2), ensure_ascii=False))).body
        assert json.loads(body)["data"]["is_result_omitted"] is not fits
        assert len(body.encode()) < LARGEST_RESULT_BYTES + 1_000
    large = json.loads(callback_of(ended(result=json.dumps("x" * LARGEST_RESULT_BYTES))).body)
    assert (large["data"]["result"], large["data"]["is_result_omitted"]) == (None, True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"state": "running", "finished_at": None}, "job_not_ended"), ({"options": "{}"}, "no_callback_url")],
)
def test_what_has_not_ended_or_asked_is_not_told(changes: dict[str, Any], code: str) -> None:
    """Anyone can submit the task, so it checks."""
    with pytest.raises(TaskFailure) as failure:
        callback_of(ended(**changes))
    assert failure.value.code == code


def test_both_secrets_sign_while_one_is_replaced() -> None:
    """A receiver that knows either verifies; a changed body does not."""
    callback = callback_of(ended())
    headers = sent(callback, SECRET, OLD_SECRET)
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(callback.body, headers) == json.loads(callback.body)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(callback.body.replace("succeeded", "failed"), headers)


def test_a_callback_arrives_as_it_was_signed(receiver: Receiver) -> None:
    """The receiver verifies what it got with the library."""
    receiver.answers = [(204, {})]
    callback = replace(callback_of(ended()), url=receiver.url)
    assert deliver(callback, sent(callback, SECRET), allowed=LOCAL) == 204
    headers, body = receiver.got[0]
    assert Webhook(SECRET).verify(body, headers)["type"] == "job.succeeded"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (500, {}, (TransientFailure, "callback_http_500", None)),
        (404, {}, (TransientFailure, "callback_http_404", None)),
        (429, {"Retry-After": "120"}, (TransientFailure, "callback_http_429", 120.0)),
        (302, {"Location": "/elsewhere"}, (TaskFailure, "callback_redirected", None)),
        (410, {}, (TaskFailure, "callback_gone", None)),
    ],
)
def test_only_2xx_is_taken_for_an_answer(
    receiver: Receiver, status: int, headers: dict[str, str], expected: tuple[type[TaskFailure], str, float | None]
) -> None:
    """410 and redirects are final, all else is transient; no message shows the URL's secrets."""
    receiver.answers = [(status, headers)]
    callback = replace(callback_of(ended()), url=receiver.url)
    with pytest.raises(TaskFailure) as raised:
        deliver(callback, sent(callback, SECRET), allowed=LOCAL)
    assert (type(raised.value), raised.value.code, getattr(raised.value, "retry_after_s", None)) == expected
    assert "hunter2" not in str(raised.value)
    assert len(receiver.got) == 1


def test_an_internal_address_is_not_connected_to(receiver: Receiver) -> None:
    """It is refused after the name is resolved, whatever the submission's check said."""
    callback = replace(callback_of(ended()), url=receiver.url)
    with pytest.raises(TaskFailure) as raised:
        deliver(callback, sent(callback, SECRET), allowed=NOBODY)
    assert (raised.value.code, raised.value.retryable, receiver.got) == ("address_refused", False, [])


def test_a_receiver_that_is_not_there_can_come_back() -> None:
    """A refused connection is tried again later."""
    callback = replace(callback_of(ended()), url="http://127.0.0.1:9/hook")
    with pytest.raises(TransientFailure) as raised:
        deliver(callback, sent(callback, SECRET), allowed=LOCAL)
    assert raised.value.code == "callback_unreachable"


def test_a_host_that_idna_does_not_know_is_refused() -> None:
    """It passes the check at submission, which asks no name server, and is not a defect of the task."""
    callback = replace(callback_of(ended()), url="https://xn--.com/")
    with pytest.raises(TaskFailure) as raised:
        deliver(callback, sent(callback, SECRET), allowed=NOBODY)
    assert raised.value.code == "callback_url_invalid"


def test_the_workers_log_shows_no_url(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """The HTTP client's own lines, which name URLs with their queries, stay out of the log."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logging(logging.INFO)
        receiver.answers = [(204, {})]
        callback = replace(callback_of(ended()), url=receiver.url)
        deliver(callback, sent(callback, SECRET), allowed=LOCAL)
        logging.getLogger("test").info("logging is on")
    finally:
        root.handlers, root.level = handlers, level
    written = capsys.readouterr().err
    assert "logging is on" in written
    assert "hunter2" not in written


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://example.com/hook?a=b", None),
        ("https://93.184.215.14:8443/hook", None),
        ("http://hooks.internal:8080/x", None),
        ("https://10.1.2.3/x", None),
        ("http://example.com/hook", "Use https://"),
        ("http://10.1.2.3:81/", None),
        ("https://127.0.0.1/", "address is internal"),
        ("https://[::1]/", "address is internal"),
        ("https://[::ffff:127.0.0.1]/", "address is internal"),
        ("https://169.254.169.254/latest/meta-data", "address is internal"),
        ("https://2130706433/", "address is internal"),
        ("https://0x7f.1/", "address is internal"),
        ("https://localhost:8000/jobs", "address is internal"),
        ("https://a.localhost./", "address is internal"),
        ("https://user:hunter2@example.com/", "Remove user and password"),
        ("https://example.com:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://example.com/\nHost: x", "absolute https"),
        ("https:///hook", "absolute https"),
        ("ftp://example.com/", "absolute https"),
    ],
)
def test_a_url_is_checked_at_submission_as_far_as_that_goes_without_dns(url: str, hint: str | None) -> None:
    """Internal addresses in any writing, user info and plain HTTP are refused unless an operator allows the host."""
    problem = problem_with_callback(url, settings(http_allow_hosts="hooks.internal:8080, 10.0.0.0/8"))
    assert problem == hint if hint is None else problem is not None and hint in problem
    assert "hunter2" not in (problem or "")


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://Example.com/a?key=hunter2", "example.com:443"),
        ("http://example.com/b", "example.com:80"),
        ("https://example.com:8443/", "example.com:8443"),
        ("https://[2001:db8::1]/", "2001:db8::1:443"),
        (f"https://{'a.' * 40}com/", f"{hashlib.sha256(b'a.' * 40 + b'com').hexdigest()[:40]}:443"),
        ("https://bücher.example/", f"{hashlib.sha256('bücher.example'.encode()).hexdigest()[:40]}:443"),
    ],
)
def test_every_url_has_a_receiver_that_fits_into_a_key(url: str, receiver: str) -> None:
    """It is host and port; what a key cannot have is a digest, so that no callback is lost for its URL."""
    assert concurrency_key_of(url) == f"callback:{receiver}"
    RunOptions(concurrency_key=concurrency_key_of(url))


def test_without_a_secret_there_are_no_callbacks() -> None:
    """The refusal names the setting."""
    assert "CELERIAC_WEBHOOK_SECRET" in (problem_with_callback(URL, settings(webhook_secret="")) or "")


@pytest.mark.parametrize("secret", ["hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_***", f"{SECRET} hunter2"])
def test_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    """The message says how to make one."""
    with pytest.raises(ValidationError) as refused:
        settings(webhook_secret=secret)
    assert "openssl rand" in str(refused.value)
    assert secret.removeprefix("whsec_") not in str(refused.value) or secret == "whsec_"  # noqa: S105 - an empty one
